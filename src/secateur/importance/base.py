"""Scores and the kept units that follow from them.

A criterion returns, for every axis asked for, ``{(axis, scope): array}`` of shape (old sizes of the axis' parents ...,
old size): larger means keep. Heads come out per group because ``g`` encloses ``h`` in the layouts, so no criterion can
mix groups by mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.anatomy.anatomy import Anatomy, Scope
from secateur.calibration.stats import Stats
from secateur.pruning.keep import KeepSets

Scores = Mapping[tuple[str, Scope], NDArray[np.float64]]
#: Reads one tensor of the parent by its on-disk name.
Reader = Callable[[str], torch.Tensor]


class Criterion(Protocol):
    """Scores units of ``axes``. ``read`` gives weights when the criterion needs them; ``seed`` makes it repeatable."""

    def __call__(self, anatomy: Anatomy, read: Reader, axes: Iterable[str], seed: int) -> Scores: ...


class Measured(Protocol):
    """Scores units of ``axes`` from statistics, for a cut to ``sizes`` (axis symbol -> new size)."""

    def __call__(
        self, anatomy: Anatomy, stats: Stats, axes: Iterable[str], sizes: Mapping[str, int], read: Reader
    ) -> Scores: ...


@dataclass(frozen=True, slots=True)
class Slots:
    """Where scores of an axis live: its scopes and the shape of one score array."""

    scopes: tuple[Scope, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, anatomy: Anatomy, axis: str) -> Slots:
        lead = tuple(anatomy.sizes[p] for p in anatomy.parents[axis])
        return cls(anatomy.scopes[axis], (*lead, anatomy.sizes[axis]))


def changed_axes(anatomy: Anatomy, sizes: Mapping[str, int]) -> list[str]:
    """Live axes whose size shrinks."""
    return [a for a in anatomy.sizes if a in anatomy.live and sizes[a] != anatomy.sizes[a]]


def keep_best(anatomy: Anatomy, scores: Scores, sizes: Mapping[str, int]) -> KeepSets:
    """The ``sizes[axis]`` best units of every scored axis, in their old order; ties go to the lower index."""
    keep = KeepSets(anatomy)
    for (axis, scope), score in scores.items():
        ranked: Any = np.argsort(-score, axis=-1, kind="stable")
        keep.set(axis, scope, np.sort(ranked[..., : sizes[axis]], axis=-1))
    return keep
