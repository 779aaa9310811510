"""Level switches keep budgets exactly; selection keeps the best; the search finds additive optima."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.allocation import Choice, Item, Option, Problem, Resource
from secateur.allocation.evolutionary import Stage, solve
from secateur.allocation.mutation import mutate, switch
from secateur.errors import UsageError

from .problems import QUICK, every, layers, optimum, problems


@QUICK
@given(problem=problems(), seed=st.integers(0, 99))
def test_budgets_hold_under_every_mutation(problem: Problem, seed: int) -> None:
    fitting = every(problem)
    rng = np.random.default_rng(seed)
    for choice in fitting[:4]:
        for _ in range(6):
            choice = mutate(problem, choice, rng)
            assert problem.fits(choice)


def test_a_switch_moves_two_items_by_one_level_each() -> None:
    items = tuple(Item(str(i), tuple(Option((level,), 0.0) for level in range(5))) for i in range(6))
    problem = Problem(items, (Resource("levels", 12, exact=True),))
    choice: Choice = (2,) * 6
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        after = switch(problem, choice, rng)
        change = sorted(np.array(after) - np.array(choice))
        assert change == [-1, 0, 0, 0, 0, 1]
        seen.add(after)
    assert len(seen) == 30  # every ordered pair of items


def test_mutations_of_depth_reach_every_choice() -> None:
    problem = layers(7, 3, [0.0] * 7)
    rng = np.random.default_rng(0)
    choice, seen = every(problem)[0], set()
    for _ in range(2000):
        choice = mutate(problem, choice, rng)
        seen.add(choice)
    assert seen == set(every(problem))


@pytest.mark.parametrize("seed", range(5))
def test_finds_the_sorted_optimum_of_additive_losses(seed: int) -> None:
    rng = np.random.default_rng(seed)
    losses = [float(v) for v in rng.random(12)]
    problem = layers(12, 4, losses)
    found = solve(problem, seed=seed, generations=40, offspring=16)
    assert found.loss == pytest.approx(sum(sorted(losses)[:4])) == pytest.approx(optimum(problem))
    assert found.cost == (4,)


def test_elitism_on_fixed_data_never_loses_ground() -> None:
    """A loss with interactions: the parent's never rises, and the answer is the last parent."""
    rng = np.random.default_rng(1)
    pair = rng.standard_normal((9, 9))
    problem = layers(9, 4, [0.0] * 9)

    def measure(choices: Sequence[Choice], generation: int) -> list[float]:
        return [float((1 - np.array(c)) @ pair @ (1 - np.array(c))) for c in choices]

    seen: list[float] = []
    found = solve(
        problem, seed=3, generations=30, offspring=8, initial=4, stages=[Stage(3, measure), Stage(1, measure)],
        watch=lambda generation, parent, loss: seen.append(loss),
    )  # fmt: skip
    assert seen == sorted(seen, reverse=True) and seen[-1] == found.loss
    assert found.loss == min(measure(every(problem), 0))


def test_stages_measure_fewer_and_fewer_and_the_parent_only_last() -> None:
    problem = layers(10, 5, [0.0] * 10)
    calls: list[tuple[int, int, bool]] = []
    parents: list[Choice] = []

    def stage(level: int):  # type: ignore[no-untyped-def]
        def measure(choices: Sequence[Choice], generation: int) -> list[float]:
            calls.append((level, len(choices), bool(parents) and parents[-1] in choices))
            return [float(np.array(c) @ np.arange(10)) for c in choices]

        return measure

    stages = [Stage(4, stage(0)), Stage(2, stage(1)), Stage(1, stage(2))]
    solve(
        problem, seed=0, generations=5, offspring=12, stages=stages,
        watch=lambda generation, parent, loss: parents.append(parent),
    )  # fmt: skip
    later = calls[1:]  # the first call measures the only initial choice
    assert {(level, n) for level, n, _ in later if level} == {(1, 4), (2, 3)}
    assert all(present == (level == 2) for level, _, present in later[3:])


def test_the_seed_decides() -> None:
    problem = layers(16, 6, [float(v) for v in np.random.default_rng(0).random(16)])
    runs = [solve(problem, seed=s, generations=2, offspring=4, initial=3).choice for s in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_a_start_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="does not keep the budgets"):
        solve(layers(4, 2, [0.0] * 4), start=(0, 0, 0, 1))
    with pytest.raises(UsageError, match="at least 1"):
        solve(layers(4, 2, [0.0] * 4), offspring=0)
