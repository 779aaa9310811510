"""The arithmetic of rounds, and two real processes taking turns. Times themselves are never asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur.errors import SecateurError, UsageError
from secateur.evaluation.load import Place
from secateur.evaluation.speed import SpeedSettings, _orders, measure, summary
from secateur.model import open_model


def turn(prefill: float, decode: float, peak: int | None = 100) -> dict[str, float | int | None]:
    return {"prefill_s": prefill, "decode_s": decode, "peak_bytes": peak}


def test_ratios_are_taken_within_a_round() -> None:
    """The machine is three times slower in the second round; the ratio does not care."""
    settings = SpeedSettings(batch=2, prompt=30, new=6)
    rounds = [[turn(1.0, 2.0), turn(0.5, 1.0, 50)], [turn(3.0, 6.0), turn(1.5, 2.0, 50)]]
    parent, child = summary(rounds, settings)
    assert parent["prefill_tokens_per_s"] == {"min": 20.0, "median": 40.0, "max": 60.0}
    assert parent["decode_ratio"] == {"min": 1.0, "median": 1.0, "max": 1.0}
    assert child["prefill_ratio"] == {"min": 2.0, "median": 2.0, "max": 2.0}
    assert child["decode_ratio"] == {"min": 2.0, "median": 2.5, "max": 3.0}
    assert child["decode_tokens_per_s"] == {"min": 6.0, "median": 9.0, "max": 12.0}
    assert child["peak_ratio"]["median"] == 0.5


def test_memory_that_cannot_be_measured_is_none() -> None:
    assert summary([[turn(1, 1), turn(1, 1, None)]], SpeedSettings())[0]["peak_ratio"] is None


def test_the_order_is_reversed_every_round() -> None:
    assert list(_orders(3, 3)) == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]


@pytest.mark.slow
def test_two_processes_take_turns(parent_folder: Path) -> None:
    told: list[tuple[int, int]] = []
    settings = SpeedSettings(prompt=12, new=3, rounds=2, threads=1)
    with open_model(parent_folder) as model:
        found = measure([model, model], Place(fast=True), settings, progress=lambda *a: told.append(a))
    assert told == [(i, 6) for i in range(7)]
    for entry in found:
        assert entry["threads"] == 1
        for name in ("prefill_tokens_per_s", "decode_tokens_per_s", "prefill_ratio", "decode_ratio"):
            assert 0 < entry[name]["min"] <= entry[name]["median"] <= entry[name]["max"]
    assert found[0]["prefill_ratio"]["max"] == 1.0


def test_a_model_that_cannot_run_is_named(parent_folder: Path) -> None:
    """Ids beyond the embedding are an IndexError in the other process: it is reported here."""
    with open_model(parent_folder) as model, pytest.raises(SecateurError, match="parent"):
        model.anatomy.sizes["v"] = 10_000
        measure([model], Place(), SpeedSettings(prompt=8, new=1, rounds=1, threads=1))


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="rounds"):
        SpeedSettings(rounds=0)
