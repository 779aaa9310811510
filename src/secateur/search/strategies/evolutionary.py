"""Evolutionary search over all axes at once: EvoPress (Sieberling et al., arXiv 2410.14649) on a model's shape.

    parent  <- best of the initial random shapes within the budget
    repeat     children <- level switches of the parent: one axis (or layer) gives, another takes, no budget is broken
               parent   <- stages of rising text keep fewer and fewer; the parent joins the last one (elitism)
    winner  <- of the last parents and those that came near, after a short distillation of each

Fitness is the KL from the unpruned model on text drawn anew for each generation; k = min(U{1..3}, U{1..3}) switches.
Differences: EvoPress levels units of one kind within a fixed shape, here a level is the size of an axis, exactly
counted; and where it ends with its last parent, here that parent, earlier ones and runners-up are compared once more on
the same text, after healing where asked.
"""

from __future__ import annotations

from collections.abc import Callable

from secateur.search.arena import Arena
from secateur.search.evolve import GENERATIONS, contenders, evolve
from secateur.search.ladder import finals
from secateur.search.stages import Stage
from secateur.search.strategies.base import Outcome


def search(arena: Arena) -> Outcome:
    start = arena.space.random(arena.rng, arena.effort.initial)
    parents, why = evolve(arena, start, lambda c: arena.space.mutate(c, arena.rng), stages(arena))
    outcome = finals(arena, contenders(arena, parents), parents=len(parents))
    return outcome.noting(why)


def stages(arena: Arena, heal: int = 0) -> list[tuple[Callable[[int], Stage], int]]:
    """One per length of text: half of the offspring go on from the first, a quarter from the second, and so on. With
    ``heal``, the last distils on so many tokens first, each earlier one on half of the next one's."""
    tokens, offspring = sorted(arena.effort.tokens), arena.effort.offspring

    def stage_of(i: int, n: int) -> Callable[[int], Stage]:
        lessons = arena.lessons(heal // 2 ** (len(tokens) - 1 - i))
        return lambda turn: arena.stage(GENERATIONS, n, turn=turn, heal=lessons)

    return [(stage_of(i, n), max(1, offspring // 2 ** (i + 1))) for i, n in enumerate(tokens)]
