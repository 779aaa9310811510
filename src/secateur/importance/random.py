"""Keep random units: the baseline every criterion must beat."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np

from secateur.anatomy.anatomy import Anatomy
from secateur.importance.base import Reader, Scores, Slots


def score(anatomy: Anatomy, read: Reader, axes: Iterable[str], seed: int) -> Scores:
    """Uniform scores; the draw for an axis and scope depends on ``seed`` alone, not on what else is scored."""
    out = {}
    for axis in axes:
        slots = Slots.of(anatomy, axis)
        for scope in slots.scopes:
            rng = np.random.default_rng([seed, zlib.crc32(f"{axis}/{scope}".encode())])
            out[axis, scope] = rng.random(slots.shape)
    return out
