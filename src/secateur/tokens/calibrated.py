"""A schedule for one model: where to reduce and how hard, for the least KL behind reduced prompts of real text.

The paper gives every model the same locations and all of them the same ratio. Here the set of locations and their
strengths is searched; the solver scales each candidate to the same operations (:mod:`secateur.tokens.schedule`), so
candidates differ in nothing but quality. First every single location that can carry the whole cut, then, from the best
of those and the paper's schedule, steps that are taken when the KL falls:

    move a location by one candidate layer     add one     take one away     halve or double one's strength

Each trial is one pass over a quarter of the calibration windows behind :class:`secateur.tokens.score.Judge`. The best
few and the paper's schedule then meet on the others, since the best of many on little text is often its text's alone;
the paper's stays unless the winner is below it by more than the standard error of their difference over windows. The
result is a TokenReduction like any other.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from secateur.errors import UsageError
from secateur.tokens.cost import Costs, costs, described
from secateur.tokens.methods import METHODS
from secateur.tokens.schedule import default_locations, solve
from secateur.tokens.score import Judge, Progress
from secateur.tokens.settings import TokenReduction

_PART = 4
"""Trials see one of so many windows."""

#: Location -> strength; the same as sorted pairs.
Strengths = Mapping[int, float]
Key = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """``asked``: the best reduction found; ``kl``: nats per token on windows that trials did not see; ``paper``: the KL
    of the default schedule there; ``tried``: (locations, strengths, KL on the first windows) of every trial."""

    asked: TokenReduction
    kl: float
    paper: float
    tried: tuple[tuple[tuple[int, ...], tuple[float, ...], float], ...]


@dataclass(slots=True)
class _Search:
    judge: Judge
    asked: TokenReduction
    costs: Costs
    places: tuple[int, ...]
    trials: int
    progress: Progress
    seen: dict[Key, float] = field(default_factory=dict)

    def kl(self, strengths: Strengths) -> float:
        """Infinite where the share cannot be reached."""
        key = tuple(sorted(strengths.items()))
        if key not in self.seen:
            candidate = with_strengths(self.asked, strengths)
            try:
                solve(self.costs, candidate, self.judge.prompt, matches=METHODS[candidate.method].matches)
                self.seen[key] = self.judge.score(candidate).kl
            except UsageError:
                return float("inf")
            self.progress(len(self.seen), self.trials)
        return self.seen[key]

    @property
    def spent(self) -> bool:
        return len(self.seen) >= self.trials


def with_strengths(asked: TokenReduction, strengths: Strengths) -> TokenReduction:
    """``asked`` at the locations and strengths given."""
    places = sorted(strengths)
    return asked.but(locations=tuple(places), strengths=tuple(float(strengths[p]) for p in places), ratios=())


def calibrate(
    judge: Judge,
    asked: TokenReduction,
    *,
    trials: int = 30,
    finalists: int = 4,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Calibrated:
    """Search at most ``trials`` schedules for ``asked.flops``, of which ``finalists`` are compared on other windows;
    deterministic under ``seed``.

    Raises UsageError when ``asked`` names ratios instead of a share of operations.
    """
    if asked.flops is None or asked.flops == 1:
        raise UsageError(f"calibrating a schedule needs a share of operations below 1, flops is {asked.flops}")
    found = costs(described(judge.network))
    places = tuple(i for i, layer in enumerate(found.layers[:-1]) if asked.after == "any" or _kind(layer, asked.after))
    first, rest = judge.parted(_PART)
    work = _Search(first, asked, found, places, trials, progress)
    paper = dict.fromkeys(asked.locations or default_locations(found, asked.after), 1.0)
    work.kl(paper)
    singles = {p: work.kl({p: 1.0}) for p in places if not work.spent}
    starts = [paper, *({p: 1.0} for p in sorted(singles, key=lambda p: singles[p])[:2])]
    best = min(starts, key=work.kl)
    _climb(work, best, random.Random(seed))
    tried = [(tuple(p for p, _ in k), tuple(s for _, s in k), v) for k, v in work.seen.items()]
    chosen = sorted(work.seen, key=lambda k: work.seen[k])[: max(1, finalists)]
    key, kl, published = _final(rest, asked, chosen, tuple(sorted(paper.items())))
    return Calibrated(with_strengths(asked, dict(key)), kl, published, tuple(tried))


def _final(judge: Judge, asked: TokenReduction, chosen: Sequence[Key], published: Key) -> tuple[Key, float, float]:
    """(the winner, its KL, that of the published schedule); the published one wins where the gain may be chance."""
    found = {k: judge.each(with_strengths(asked, dict(k))) for k in dict.fromkeys((*chosen, published))}
    key = min(found, key=lambda k: float(found[k].mean()))
    gain = found[published] - found[key]
    if len(gain) > 1 and float(gain.mean()) <= float(gain.std()) / len(gain) ** 0.5:
        key = published
    return key, float(found[key].mean()), float(found[published].mean())


def _kind(layer: object, after: str) -> bool:
    return bool(getattr(layer, {"recurrent": "recurrent", "attention": "attends"}[after]))


def _climb(work: _Search, best: Strengths, draw: random.Random) -> None:
    """Random steps, kept when they help; a tenth of the trials may repeat what was seen."""
    idle = 0
    while not work.spent and idle < 20 * work.trials:
        before = len(work.seen)
        candidate = _step(best, work.places, draw)
        if candidate and work.kl(candidate) < work.kl(best):
            best = candidate
        idle += len(work.seen) == before


def _step(strengths: Strengths, places: tuple[int, ...], draw: random.Random) -> dict[int, float]:
    """One change; empty when it cannot be made."""
    new = dict(strengths)
    one = draw.choice(sorted(new))
    what = draw.choice(("move", "add", "remove", "weaken", "strengthen"))
    free = [p for p in places if p not in new]
    if what == "move":
        near = sorted(free, key=lambda p: abs(p - one))[:2]
        if near:
            new[draw.choice(near)] = new.pop(one)
    elif what == "add" and free:
        new[draw.choice(free)] = sum(new.values()) / len(new)
    elif what == "remove" and len(new) > 1:
        del new[one]
    else:
        new[one] *= 0.5 if what == "weaken" else 2.0
    most = max(new.values())
    return {p: s / most for p, s in new.items()}


__all__ = ["Calibrated", "calibrate", "with_strengths"]
