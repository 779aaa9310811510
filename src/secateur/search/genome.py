"""A shape together with the units that stay, where a strategy varies them instead of taking a criterion's choice.

``kept`` is the JSON of :meth:`secateur.pruning.keep.KeepSets.to_json`, which makes a genome hashable; arrays are made
from it when it is built, mutated or crossed. Heads lie inside their group, so no operation here can mix groups.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from secateur.anatomy.anatomy import Anatomy
from secateur.kernels import fast
from secateur.model import Model
from secateur.pruning.cut import Cut
from secateur.pruning.keep import KeepSets
from secateur.pruning.plan import Plan
from secateur.search.bench import Bench, built, sizes_of
from secateur.search.candidates import Candidate, Space
from secateur.search.cheap import lost
from secateur.search.planned import costs_of, planned
from secateur.search.repaired import repaired
from secateur.search.stages import Stage

Units = NDArray[np.int64]


@dataclass(frozen=True, slots=True, order=True)
class Genome:
    """``candidate``: the shape; ``kept``: which units of each axis that shrinks."""

    candidate: Candidate
    kept: str

    def __str__(self) -> str:
        return str(self.candidate)

    def to_json(self) -> dict[str, Any]:
        return {**self.candidate.to_json(), "kept": json.loads(self.kept)}

    def sets(self, anatomy: Anatomy) -> KeepSets:
        """The kept units as arrays."""
        return KeepSets.from_json(anatomy, json.loads(self.kept))


def genome(candidate: Candidate, bench: Bench) -> Genome:
    """``candidate`` with the units that the bench's criterion likes best."""
    return _packed(candidate, bench.cut(sizes_of(candidate, bench.model), candidate.layers).keep)


def mutated(parent: Genome, anatomy: Anatomy, rng: Generator, share: float) -> Genome:
    """Each row of kept units (a scope's, or a group's in it) with chance ``share`` swaps one unit for one that had
    gone."""

    def vary(axis: str, units: Units) -> Units:
        out = units.copy()
        for row in out.reshape(-1, out.shape[-1]):
            gone = np.setdiff1d(np.arange(anatomy.sizes[axis]), row)
            if len(row) and len(gone) and rng.random() < share:
                row[rng.integers(len(row))] = rng.choice(gone)
                row.sort()
        return out

    return _mapped(parent, anatomy, vary)


def crossed_units(a: Genome, b: Genome, anatomy: Anatomy, rng: Generator) -> Genome:
    """The shape of both, each row of units from one or the other. ``a`` where the shapes differ."""
    if a.candidate != b.candidate:
        return a
    other = b.sets(anatomy)
    scopes = iter(a.sets(anatomy).arrays)

    def vary(axis: str, units: Units) -> Units:
        mine, its = units.reshape(-1, units.shape[-1]), other.arrays[next(scopes)].reshape(-1, units.shape[-1])
        taken = rng.random(len(mine)) < 0.5
        return np.where(taken[:, None], mine, its).reshape(units.shape)

    return _mapped(a, anatomy, vary)


def _mapped(parent: Genome, anatomy: Anatomy, vary: Callable[[str, Units], Units]) -> Genome:
    arrays = {(axis, scope): vary(axis, units) for (axis, scope), units in parent.sets(anatomy).arrays.items()}
    return _packed(parent.candidate, KeepSets(anatomy, arrays))


def _packed(candidate: Candidate, sets: KeepSets) -> Genome:
    return Genome(candidate, json.dumps(sets.to_json(), sort_keys=True))


@built.register(Genome)
@contextmanager
def _built(shape: Genome, bench: Bench, stage: Stage) -> Iterator[Any]:
    if stage.repair:
        with repaired(shape, bench) as module:
            yield module
        return
    anatomy = bench.model.anatomy
    module = bench.module(Cut(anatomy, shape.sets(anatomy), shape.candidate.layers))
    with fast(module):
        yield module


@planned.register(Genome)
def _planned(shape: Genome, model: Model, notes: Sequence[str]) -> Plan:
    return replace(planned(shape.candidate, model, notes), kept=json.loads(shape.kept))


@costs_of.register(Genome)
def _costs_of(shape: Genome, space: Space) -> Mapping[str, float]:
    return costs_of(shape.candidate, space)


@lost.register(Genome)
def _lost(shape: Genome, bench: Bench) -> float:
    return lost(shape.candidate, bench)
