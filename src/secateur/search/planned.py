"""A shape as a plan that `secateur prune` takes, and what it costs. Types of shapes register with both functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import singledispatch

from secateur.model import Model
from secateur.pruning.plan import Plan, make_plan
from secateur.search.candidates import Candidate, Space
from secateur.search.stages import Shape


@singledispatch
def planned(shape: Shape, model: Model, notes: Sequence[str]) -> Plan:
    """The plan of ``shape``, with ``notes`` about where it comes from."""
    raise TypeError(f"nothing plans a {type(shape).__name__}")


@planned.register(Candidate)
def _planned(candidate: Candidate, model: Model, notes: Sequence[str]) -> Plan:
    plan = make_plan(model, keep=candidate.keep, layers=candidate.layers)
    return replace(plan, notes=(*notes, *plan.notes))


@singledispatch
def costs_of(shape: Shape, space: Space) -> Mapping[str, float]:
    """Resource -> what ``shape`` takes: parameters, and everything the budget limits."""
    raise TypeError(f"nothing counts a {type(shape).__name__}")


@costs_of.register(Candidate)
def _costs_of(candidate: Candidate, space: Space) -> Mapping[str, float]:
    sizes, layers = space.sizes(candidate), frozenset(candidate.layers)
    return {"params": float(space.anatomy.count(sizes, layers)), **_plain(space.costs(candidate))}


def _plain(costs: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in costs.items()}
