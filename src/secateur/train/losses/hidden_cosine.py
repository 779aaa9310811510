"""Cosine distance between hidden states (as in DistilBERT, arXiv 1910.01108).

    1 - <s, t> / (|s| |t|), mean over tokens

It ignores the length of the states, which a cut changes and the next norm removes anyway.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def hidden_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar from (n, d) states."""
    return (1 - functional.cosine_similarity(student.float(), teacher.float(), dim=-1)).mean()
