"""Bonsai, "Everybody Prune Now" (arXiv 2402.05406): units valued by a regression over random sub-models, forward only.

    each round: the units with the lowest prior may go, twice as many as will go (the rest are safe)
                sub-models without a random half of them, in complementary pairs:  utility_s = -loss
                w = argmin  sum_s (utility_s - c - sum_u m_su w_u)^2 + ridge |w|^2,   m_su = 1 where u stays
                the units of lowest w go, a share of all units at a time, until the budget is kept

The ridge is the one whose predictions of held-out sub-models rank best (Kendall's tau, five folds).

Against the published code: the prior is the influence on the layer's output (:mod:`.shortgpt`; there activations),
ridge alone and no L1, and a sub-model reads batches drawn for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from secateur.allocation.problem import Choice
from secateur.search.removal.arena import strategy
from secateur.search.removal.found import Found, Step, Watch, Work, found, silent
from secateur.search.removal.masked import Measure
from secateur.search.removal.places import Ground
from secateur.search.strategies import shortgpt

RIDGES = (1e2, 1.0, 1e-2, 1e-4, 0.0)
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Effort:
    """``samples``: sub-models a round; ``share`` of all levels that go in a round; ``batches`` of text each reads."""

    samples: int = 64
    share: float = 0.1
    batches: int = 1


def find(
    work: Work,
    ground: Ground,
    *,
    measure: Measure = "nll",
    effort: Effort | None = None,
    seed: int = 0,
    watch: Watch = silent,
) -> Found:
    """Rounds until the budget is kept. Raises BudgetError when nothing more may go."""
    effort, rng = effort or Effort(), np.random.default_rng(seed)
    prior, choice = shortgpt.scores(work, ground), ground.nothing
    quota = max(1, round(effort.share * sum(len(p.levels) for p in ground.places)))
    trials, steps = 0, list[Step]()
    taus: list[float] = []
    while not ground.fits(choice):
        free = _free(ground, choice, prior, 2 * quota)
        if not free:
            raise ground.short(choice)
        masks = sampled(len(free), effort.samples, rng)
        losses = _losses(work, ground, choice, free, masks, measure, effort, rng)
        values, tau = regress(masks, -losses)
        trials, taus = trials + len(masks), [*taus, tau]
        for j in np.argsort(values, kind="stable")[:quota]:
            raised = _raise(choice, [free[j]])
            if not ground.fits(choice) and ground.allowed(raised):
                choice = raised
                place = ground.places[free[j]]
                steps.append(Step(str(place.levels[choice[free[j]] - 1]), float(-values[j])))
        watch(f"{sum(choice)} gone, tau {tau:.2f}", trials)
    return found(work, ground.removal(choice), measure, trials, steps=tuple(steps), details={"tau": taus})


def _free(ground: Ground, choice: Choice, prior: Sequence[Sequence[float]], count: int) -> list[int]:
    """Places whose next level may go, the lowest prior first."""
    able = [i for i, p in enumerate(ground.places) if choice[i] < len(p.levels)]
    able = [i for i in able if ground.allowed(_raise(choice, [i]))]
    return sorted(sorted(able, key=lambda i: prior[i][choice[i]])[:count])


def _raise(choice: Choice, which: Sequence[int]) -> Choice:
    return tuple(o + (i in which) for i, o in enumerate(choice))


def sampled(units: int, count: int, rng: Generator) -> NDArray[np.float64]:
    """Masks (count, units) in complementary pairs; 1 = stays. Half stay; of an odd number one more or one less."""
    rows: list[NDArray[np.float64]] = []
    while len(rows) < count:
        mask = np.zeros(units)
        mask[rng.permutation(units)[: (units + 1) // 2]] = 1.0
        rows += [mask, 1.0 - mask]
    return np.array(rows[:count])


def _losses(
    work: Work,
    ground: Ground,
    choice: Choice,
    free: Sequence[int],
    masks: NDArray[np.float64],
    measure: Measure,
    effort: Effort,
    rng: Generator,
) -> NDArray[np.float64]:
    """Loss of every sub-model; those the config cannot say are measured too, they only inform."""
    n, base = len(work.batches), ground.removal(choice)
    out = np.zeros(len(masks))
    for s, mask in enumerate(masks):
        batches = sorted(int(b) for b in rng.choice(n, min(n, effort.batches), replace=False))
        trial = ground.removal(_raise(choice, [i for i, stays in zip(free, mask, strict=True) if not stays]))
        out[s] = float(work.costs([trial], base=base, batches=batches)[measure][0])
    return out


def regress(masks: NDArray[np.float64], utility: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """(value of every unit (units,), tau of the ridge that was chosen)."""
    taus = [_tau(masks, utility, ridge) for ridge in RIDGES]
    best = int(np.argmax(taus))
    return _fit(masks, utility, RIDGES[best])[0], taus[best]


def _fit(masks: NDArray[np.float64], utility: NDArray[np.float64], ridge: float) -> tuple[NDArray[np.float64], float]:
    mean, centre = masks.mean(0), utility.mean()
    X, y = masks - mean, utility - centre
    # lstsq, because without a ridge masks that all keep equally many are collinear
    gram = X.T @ X + ridge * np.eye(X.shape[1])
    w = np.linalg.lstsq(gram, X.T @ y, rcond=None)[0]
    return w, float(centre - mean @ w)


def _tau(masks: NDArray[np.float64], utility: NDArray[np.float64], ridge: float) -> float:
    """Mean over folds of Kendall's tau between predicted and measured utility of sub-models that were left out."""
    from scipy.stats import kendalltau

    fold, taus = np.arange(len(masks)) % _FOLDS, []
    for f in range(_FOLDS):
        w, c = _fit(masks[fold != f], utility[fold != f], ridge)
        tau = kendalltau(masks[fold == f] @ w + c, utility[fold == f]).statistic
        taus.append(0.0 if np.isnan(tau) else float(tau))
    return float(np.mean(taus))


search = strategy(lambda work, ground, arena: find(work, ground, seed=arena.seed))
"""Whole layers, until the budget of a search is kept."""
