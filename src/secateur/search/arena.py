"""Where strategies search: candidates in, scores out, each measured once, written down, spread over processes.

Every process runs the same strategy with the same seed. Of the candidates of one call that have no score yet, process
r measures every world-size-th one from r on; then all know all scores. ``spent`` counts what measuring cost, work
between measurements included, divided by the number of processes; it is written down with each score, so that a search
that replays its journal sees the same time pass. A wall-clock budget therefore decides where the sequence of steps
ends, never what the steps are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from secateur.errors import BudgetError
from secateur.pruning.plan import Plan
from secateur.search.bench import Bench, built
from secateur.search.candidates import Space
from secateur.search.cheap import lost
from secateur.search.front import Point
from secateur.search.heal import heal, whole_steps
from secateur.search.journal import Journal
from secateur.search.outcome import Effort
from secateur.search.planned import costs_of, planned
from secateur.search.processes import gathered, rank, world
from secateur.search.stages import Score, Shape, Stage

S = TypeVar("S", bound=Shape)


@dataclass(frozen=True, slots=True)
class Best:
    """The best shape so far: the lowest KL at the most expensive stage reached."""

    shape: Shape
    stage: Stage
    score: Score


class Arena:
    """``space``: candidates within the budget; ``bench``: model and text; ``effort``: how much a strategy may do.

    ``seconds``: what a search may spend, None without limit. ``journal``: earlier scores, and where new ones go.
    ``watch`` is called after every measurement.
    """

    def __init__(
        self,
        bench: Bench,
        space: Space,
        effort: Effort | None = None,
        *,
        seed: int = 0,
        seconds: float | None = None,
        journal: Journal | None = None,
        watch: Callable[[Arena], None] = lambda arena: None,
    ) -> None:
        self.bench, self.space, self.effort = bench, space, effort or Effort()
        self.model, self.seed, self.seconds, self.journal, self.watch = bench.model, seed, seconds, journal, watch
        self.rng = np.random.default_rng(seed)
        self.scores: dict[tuple[Shape, Stage], Score] = {}
        self.best: Best | None = None
        self.spent, self.measured = 0.0, 0
        self._mark = time.perf_counter()

    # ---- scores -------------------------------------------------------------------------------------------------

    def score(self, shapes: Sequence[S], stage: Stage) -> list[float]:
        """KL from the parent of each (cheap stage: importance lost); lower is better. Infinite where it diverged."""
        self._fill([s for s in dict.fromkeys(shapes) if (s, stage) not in self.scores], stage)
        return [self.scores[s, stage].kl for s in shapes]

    def rank(self, shapes: Sequence[S], stage: Stage) -> list[S]:
        """``shapes``, each once, the best first; equals in the order given."""
        unique = list(dict.fromkeys(shapes))
        losses = self.score(unique, stage)
        return [unique[i] for i in sorted(range(len(unique)), key=lambda i: losses[i])]

    def afford(self, shapes: Sequence[S], stage: Stage) -> list[S]:
        """Measure one after the other (under torchrun as many as there are processes) while there is time, at least
        once; returns those that were."""
        done: list[S] = []
        for start in range(0, len(shapes), world()):
            if done and not self.goes_on():
                break
            some = list(shapes[start : start + world()])
            self.score(some, stage)
            done += some
        return done

    def goes_on(self, share: float = 1.0) -> bool:
        """Whether less than this share of the time is spent. What is being measured is never cut short."""
        return self.seconds is None or self.spent < share * self.seconds

    def _fill(self, shapes: list[S], stage: Stage) -> None:
        known = {s: self.journal.get(s, stage) for s in shapes} if self.journal is not None else {}
        mine = [s for s in shapes if known.get(s) is None]
        fresh: dict[S, Score] = {}
        for shape in mine[rank() :: world()]:
            fresh[shape] = self._measure(shape, stage)
        for found in gathered(fresh):
            known |= found
        for shape in shapes:
            score = known[shape]
            assert score is not None
            self._note(shape, stage, score)
        self.measured += len(mine)

    def _measure(self, shape: Shape, stage: Stage) -> Score:
        if not stage.windows:
            kl, nll = lost(shape, self.bench), float("nan")
        else:
            kl, nll = self._compared(shape, stage)
        now = time.perf_counter()
        score = Score(kl, nll, (now - self._mark) / world())
        self._mark = now
        if self.journal is not None:
            self.journal.add(shape, stage, score)
        return score

    def _compared(self, shape: Shape, stage: Stage) -> tuple[float, float]:
        bench = self.bench
        bench.parent.ask(stage.windows)
        with built(shape, bench, stage) as module:
            if stage.heal:
                heal(module, bench, stage.heal)
            kl, nll = bench.compare(module, stage.windows)
        return (kl, nll) if np.isfinite(kl) else (float("inf"), nll)

    def _note(self, shape: Shape, stage: Stage, score: Score) -> None:
        self.scores[shape, stage] = score
        self.spent += score.seconds
        if stage.windows:
            new = Best(shape, stage, score)
            if self.best is None or _worth(new) < _worth(self.best):
                self.best = new
        self.watch(self)

    # ---- stages and results -------------------------------------------------------------------------------------

    def stage(self, name: str, tokens: int, *, turn: int | None = None, heal: int = 0, repair: bool = False) -> Stage:
        """A stage that reads about ``tokens`` of text: the first windows, or others at every ``turn``."""
        n = len(self.bench.windows)
        count = min(n, max(1, -(-tokens // self.bench.windows.shape[1])))
        if turn is None or count == n:
            chosen = list(range(count))
        else:
            drawn = np.random.default_rng([self.seed, turn]).choice(n, count, replace=False)
            chosen = sorted(int(i) for i in drawn)
        return Stage(name, tuple(chosen), heal, repair)

    def lessons(self, tokens: int) -> int:
        """``tokens`` of distillation in whole steps, at least one; 0 stays 0."""
        return whole_steps(tokens, self.bench) if tokens else 0

    def plan(self, shape: Shape, notes: Sequence[str] = ()) -> Plan:
        """What `secateur prune --plan` takes."""
        return planned(shape, self.model, notes)

    def points(self) -> Iterator[Point]:
        """Every measurement that read text, with what the shape takes."""
        for (shape, stage), score in self.scores.items():
            if stage.windows:
                yield Point(shape, stage, score, costs_of(shape, self.space))

    def fitting(self, shapes: Sequence[S]) -> list[S]:
        """``shapes``, each once. Raises BudgetError when there are none."""
        if not shapes:
            raise BudgetError("the search found no shape within the budget", hint="raise the budget")
        return list(dict.fromkeys(shapes))


def _worth(best: Best) -> tuple[int, int, float]:
    """Smaller is better: stages that read and train more decide before the KL does."""
    return -best.stage.heal, -len(best.stage.windows), best.score.kl
