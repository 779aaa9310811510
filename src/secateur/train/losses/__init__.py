"""Losses, one a file; the registries below are the lists users see.

A divergence compares log-probabilities of student and teacher over the same m outcomes, (n, m) each, and gives (n,)
nats per token: m is the vocabulary, or k tokens and the lumped rest when the teacher was cached. A hidden-state loss
compares (n, d) hidden states and gives a scalar.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from secateur.train.losses.cross_entropy import cross_entropy
from secateur.train.losses.forward_kl import forward_kl
from secateur.train.losses.hidden_cosine import hidden_cosine
from secateur.train.losses.hidden_mse import hidden_mse
from secateur.train.losses.jensen_shannon import jensen_shannon
from secateur.train.losses.reverse_kl import reverse_kl

Loss = Callable[[Tensor, Tensor], Tensor]

DIVERGENCES: dict[str, Loss] = {"kl": forward_kl, "reverse-kl": reverse_kl, "js": jensen_shannon}
HIDDEN: dict[str, Loss] = {"cosine": hidden_cosine, "mse": hidden_mse}

__all__ = [
    "DIVERGENCES",
    "HIDDEN",
    "Loss",
    "cross_entropy",
    "forward_kl",
    "hidden_cosine",
    "hidden_mse",
    "jensen_shannon",
    "reverse_kl",
]
