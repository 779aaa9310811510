"""The stages candidates climb: everything is measured cheaply, the best of it dearly, the best of that decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from secateur.search.agreement import agreement
from secateur.search.arena import Arena
from secateur.search.outcome import Agreement, Outcome
from secateur.search.stages import Shape, Stage

S = TypeVar("S", bound=Shape)

CHEAP = Stage("cheap")
#: Share of the time after which a strategy should come to its finalists, who are distilled.
SEARCHING = 0.6


@dataclass(frozen=True, slots=True)
class Rung:
    """Measure at ``stage``, let the best ``keep`` go on."""

    stage: Stage
    keep: int


@dataclass(frozen=True, slots=True)
class Climbed:
    """``best`` first, by ``stage``, the last one reached."""

    best: tuple[Shape, ...]
    stage: Stage
    agreements: tuple[Agreement, ...]
    notes: tuple[str, ...]


def climb(arena: Arena, shapes: Sequence[S], rungs: Sequence[Rung]) -> Climbed:
    """``shapes`` through ``rungs``. Stages that distil are given up when the time is over, which a note says."""
    survivors: list[S] = arena.fitting(shapes)
    stage, agreements, notes = rungs[0].stage, list[Agreement](), list[str]()
    for i, rung in enumerate(rungs):
        if i and rung.stage.heal and not arena.goes_on():
            notes.append(f"the time was over before stage {rung.stage.name}")
            break
        measured = arena.afford(survivors, rung.stage) if rung.stage.heal else survivors
        if len(measured) < len(survivors):
            notes.append(f"the time was over after {len(measured)} of {len(survivors)} at stage {rung.stage.name}")
        after = arena.score(measured, rung.stage)
        if i:
            found = agreement(stage.name, rung.stage.name, arena.score(measured, stage), after)
            agreements += [found] if found is not None else []
        survivors = arena.rank(measured, rung.stage)[: rung.keep]
        stage = rung.stage
    return Climbed(tuple(survivors), stage, tuple(agreements), tuple(notes))


def finals(arena: Arena, shapes: Sequence[Shape], **details: object) -> Outcome:
    """The last choice among ``shapes``: all at the last zero-shot stage, the best of them repaired or distilled as the
    effort says, then the winner."""
    effort = arena.effort
    tokens = max(effort.tokens)
    rungs = [Rung(arena.stage("zero-shot", tokens), effort.finalists)]
    if effort.repair:
        rungs.append(Rung(arena.stage("repaired", tokens, repair=True), effort.finalists))
    if effort.heal:
        rungs.append(Rung(arena.stage("healed", tokens, heal=arena.lessons(effort.heal), repair=effort.repair), 1))
    climbed = climb(arena, shapes, rungs)
    return Outcome(climbed.best[0], climbed.stage, climbed.agreements, climbed.notes, dict(details))


def ladder(arena: Arena) -> list[Rung]:
    """The zero-shot rungs of the effort: each keeps a share so that the last one keeps the finalists."""
    tokens, finalists = sorted(arena.effort.tokens), arena.effort.finalists
    return [
        Rung(arena.stage(f"zero-shot {n:,}", n), finalists * 2 ** (len(tokens) - i)) for i, n in enumerate(tokens, 1)
    ]
