"""The (1 + lambda) loop that evolutionary strategies share: only what varies a shape and what a stage costs differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from secateur.allocation.selection import Stage as Selection
from secateur.allocation.selection import select
from secateur.search.arena import Arena
from secateur.search.ladder import SEARCHING
from secateur.search.stages import Shape, Stage

S = TypeVar("S", bound=Shape)
#: Generations that brought no shape not seen before, after which a search is over: a small space is exhausted.
IDLE = 20
#: What stages of generations are called.
GENERATIONS = "generations"


def evolve(
    arena: Arena, start: Sequence[S], vary: Callable[[S], S], stages: Sequence[tuple[Callable[[int], Stage], int]]
) -> tuple[list[S], str]:
    """Parents of all generations, the last first, and why it ended.

    The best of ``start`` is the first parent. ``stages``: (generation -> stage, how many go on); every generation draws
    fresh text, so that no shape wins by chance for long.
    """
    selection: list[Selection[S]] = [
        Selection(keep, lambda shapes, turn, stage=stage: arena.score(shapes, stage(turn)))  # type: ignore[misc]
        for stage, keep in stages
    ]
    first, *others = arena.fitting(start)
    parent, _ = select(selection, first, others, 0)
    parents, seen, idle = [parent], {*start}, 0
    for generation in range(1, arena.effort.generations + 1):
        if not arena.goes_on(SEARCHING):
            return parents[::-1], f"the time for searching was over after {generation - 1} generations"
        children = [vary(parent) for _ in range(arena.effort.offspring)]
        idle = idle + 1 if seen.issuperset(children) else 0
        if idle == IDLE:
            return parents[::-1], f"nothing new was found for {IDLE} generations"
        seen |= {*children}
        parent, _ = select(selection, parent, children, generation)
        if parent != parents[-1]:
            parents.append(parent)
    return parents[::-1], f"all {arena.effort.generations} generations were made"


def contenders(arena: Arena, parents: Sequence[S]) -> list[Shape]:
    """Twice as many shapes as there will be finalists: the last parents, then those that came nearest to being one.

    Generations read different text, so scores of different ones compare only roughly: a last stage on the same text
    for all decides.
    """
    count = max(1, arena.effort.finalists)
    measured = [(s, stage, score.kl) for (s, stage), score in arena.scores.items() if stage.name == GENERATIONS]
    most = max(len(stage.windows) for _, stage, _ in measured)
    nearest: dict[Shape, float] = {}
    for shape, stage, kl in measured:
        if len(stage.windows) == most:
            nearest[shape] = min(kl, nearest.get(shape, kl))
    first: list[Shape] = list(parents[:count])
    others = sorted((s for s in nearest if s not in first), key=lambda s: nearest[s])
    return [*first, *others][: 2 * count]
