"""Text -> the windows a model is calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from secateur.data import check_vocabulary, load_tokenizer, pack, read_texts
from secateur.model import Model


def windows_of(model: Model, text: Sequence[str | Path], *, samples: int, length: int, seed: int) -> torch.Tensor:
    """Token ids (samples, length) int64 under the model's own tokenizer; see :func:`secateur.data.pack`.

    Raises UsageError without a usable tokenizer, or when the text cannot be read or is too short.
    """
    tokenizer = load_tokenizer(model.folder)
    check_vocabulary(tokenizer, model.anatomy.sizes["v"])
    return pack(tokenizer, read_texts(text), length=length, samples=samples, seed=seed)
