"""Runs side by side: in step, in order, all or none."""

from __future__ import annotations

import pytest

from secateur.calibration.together import Together


def test_all_come_to_a_wait_before_one_goes_on() -> None:
    told: list[object] = []
    together = Together(lambda said: told.append(list(said)))

    def run(i: int) -> int:
        for step in range(2):
            told.append((i, step))
            together.wait((i, step))
        return 10 * i

    assert together.run([lambda i=i: run(i) for i in range(3)]) == [0, 10, 20]  # type: ignore[misc]
    rounds = [[(i, step) for i in range(3)] for step in range(2)]
    assert told == [*rounds[0], rounds[0], *rounds[1], rounds[1]]


def test_runs_that_never_wait_are_run_one_by_one() -> None:
    assert Together(lambda said: None).run([lambda: 1, lambda: 2]) == [1, 2]


def test_what_one_raises_ends_the_others() -> None:
    together, ended = Together(lambda said: None), []

    def run(i: int) -> None:
        try:
            together.wait(i)
            if i == 1:
                raise ValueError("one of them")
            together.wait(i)
        finally:
            ended.append(i)

    with pytest.raises(ValueError, match="one of them"):
        together.run([lambda i=i: run(i) for i in range(3)])  # type: ignore[misc]
    assert sorted(ended) == [0, 1, 2]


def test_another_number_of_waits_is_an_error() -> None:
    together = Together(lambda said: None)
    with pytest.raises(RuntimeError, match="different ways"):
        together.run([lambda: together.wait(0), lambda: None])
