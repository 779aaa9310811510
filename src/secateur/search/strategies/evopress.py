"""EvoPress (arXiv 2410.14649): (1 + lambda) evolution of what is removed, by KL on fresh text.

    parent: a choice that keeps the budget exactly
    child:  the parent after k level switches, k = min(U1, U2), U uniform on {1, 2, 3}: one place removes a level less,
            another a level more
    stage s reads T_s tokens and keeps n_s children; in the last one the parent is measured beside them (elitism)

The solver is :mod:`secateur.allocation.evolutionary`; here is the fitness. Every generation draws its batches anew, so
a parent that was lucky with one text is measured again on the next. Places may have more than one level (channels), and
a budget may count units or parameters. Choices that the config cannot say are infinitely bad.

Against the published code: the paper's generations for depth, k (n - k) / 1.5 with k of n units gone; the KL is over
the whole vocabulary; the first parent is the better of a one-shot choice and ``initial`` random ones.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.allocation import evolutionary
from secateur.allocation.problem import Choice
from secateur.allocation.selection import Stage
from secateur.search.arena import Arena
from secateur.search.removal.arena import Budgeted, Measured, strategy
from secateur.search.removal.found import Found, Step, Watch, Work, found, one_shot, silent
from secateur.search.removal.masked import Measure
from secateur.search.removal.places import NOTHING, Ground
from secateur.search.strategies import shortgpt


@dataclass(frozen=True, slots=True)
class Effort:
    """``batches`` of text per stage, rising, and ``keep`` children after each but the last; ``generations`` None: as
    in the paper. ``fresh``: other batches every generation (else the first ones, always)."""

    generations: int | None = None
    offspring: int = 32
    initial: int = 16
    batches: Sequence[int] = (1, 8)
    keep: Sequence[int] = (2,)
    fresh: bool = True


class _EnoughError(Exception):
    """Ends the search after a generation."""


class _Fitness:
    """KL of choices on the batches of a stage in a generation; the last parent is the base they are compared from."""

    def __init__(self, work: Work, ground: Ground, measure: Measure, effort: Effort, seed: int) -> None:
        self.work, self.ground, self.measure, self.effort, self.seed = work, ground, measure, effort, seed
        self.base, self.trials = NOTHING, 0

    def stages(self) -> list[Stage[Choice]]:
        keep = [*self.effort.keep, 1][: len(self.effort.batches) - 1] + [1]
        return [Stage(n, lambda c, g, s=s: self.losses(c, g, s)) for s, n in enumerate(keep)]  # type: ignore[misc]

    def losses(self, choices: Sequence[Choice], generation: int, stage: int) -> list[float]:
        able = [c for c in choices if self.ground.allowed(c) and self.ground.fits(c)]
        self.trials += len(able)
        removals = [self.ground.removal(c) for c in able]
        batches = self.drawn(generation, stage)
        costs = self.work.costs(removals, base=self.base, batches=batches)[self.measure].tolist() if able else []
        known = dict(zip(able, costs, strict=True))
        return [known.get(c, math.inf) for c in choices]

    def drawn(self, generation: int, stage: int) -> list[int]:
        n = len(self.work.batches)
        count = min(n, self.effort.batches[stage])
        if not self.effort.fresh or count == n:
            return list(range(count))
        rng = np.random.default_rng([self.seed, generation, stage])
        return sorted(int(i) for i in rng.choice(n, count, replace=False))


def generations(ground: Ground, start: Choice) -> int:
    """k (n - k) / 1.5 with k of the n levels gone."""
    k, n = sum(start), sum(len(p.levels) for p in ground.places)
    return max(1, round(k * (n - k) / 1.5))


def find(
    work: Work,
    ground: Ground,
    *,
    measure: Measure = "kl",
    effort: Effort | None = None,
    seed: int = 0,
    watch: Watch = silent,
    goes_on: Callable[[], bool] = lambda: True,
) -> Found:
    """The last parent; the search ends early when ``goes_on`` says no. Raises BudgetError when no choice keeps the
    budget."""
    effort = effort or Effort()
    start = one_shot(ground, shortgpt.scores(work, ground))
    fitness = _Fitness(work, ground, measure, effort, seed)
    total = generations(ground, start) if effort.generations is None else effort.generations
    steps: list[Step] = []

    def seen(generation: int, parent: Choice, loss: float) -> None:
        fitness.base = ground.removal(parent)
        steps.append(Step(f"generation {generation}", loss))
        watch(f"generation {generation}/{total}: {measure} {loss:.4f}", fitness.trials)
        if not goes_on():
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        answer = evolutionary.solve(
            ground.problem, seed=seed, generations=total, offspring=effort.offspring, stages=fitness.stages(),
            start=start, initial=effort.initial, watch=seen,
        )  # fmt: skip
        fitness.base = ground.removal(answer.choice)
    notes = () if len(steps) == total else (f"time was over after {len(steps)} of {total} generations",)
    return found(work, fitness.base, measure, fitness.trials, steps=tuple(steps), notes=notes)


def _in_arena(work: Measured, ground: Budgeted, arena: Arena) -> Found:
    asked, window = arena.effort, arena.bench.windows.shape[1] * arena.bench.batch
    batches = tuple(max(1, round(tokens / window)) for tokens in asked.tokens)
    effort = Effort(asked.generations, asked.offspring, asked.initial, batches)
    return find(work, ground, effort=effort, seed=arena.seed, goes_on=arena.goes_on)


search = strategy(_in_arena)
"""Which layers go, until the budget of a search is kept; other shapes stay as they are."""
