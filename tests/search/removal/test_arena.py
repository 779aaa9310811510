"""The depth methods as strategies of a search: the rows that every strategy is held to, and what is theirs alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from secateur.errors import BudgetError, UsageError
from secateur.model import open_model
from secateur.search.candidates import Space
from secateur.search.strategies import STRATEGIES
from tests.contract.harness import Parent
from tests.search import test_strategies as every
from tests.search.arenas import EFFORT, arena_of

DEPTH = ["shedder", "shortgpt", "sleb", "streamline", "logit-mse", "evopress", "bonsai", "exhaustive"]


@pytest.mark.parametrize(("name", "family"), [*((name, "nemotron_h") for name in DEPTH), ("evopress", "bamba")])
def test_strategy(name: str, family: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    every.test_strategy(name, family, parents, tmp_path)


def test_only_layers_go_and_none_is_better_than_every_choice(parents: dict[str, Parent]) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        kl = {}
        for name in DEPTH:
            arena = arena_of(model, share="75%")
            outcome = STRATEGIES[name](arena)
            assert outcome.winner.sizes == arena.space.whole().sizes  # type: ignore[attr-defined]
            kl[name] = arena.scores[outcome.winner, outcome.stage].kl
        # the best by the same measure on the same text
        assert kl["exhaustive"] == min(kl.values())


def test_time_ends_the_evolution_after_a_generation(parents: dict[str, Parent]) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        arena = arena_of(model, effort=replace(EFFORT, generations=50), seconds=1e-9)
        outcome = STRATEGIES["evopress"](arena)
        assert len(outcome.details["steps"]) == 1
        assert any("time was over after 1 of 50" in note for note in outcome.notes)


def test_without_layers_that_may_go_there_is_nothing_to_do(parents: dict[str, Parent]) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        for name in DEPTH:
            arena = arena_of(model)
            arena.space = Space(model, arena.space.budget)
            with pytest.raises(UsageError, match="none may go"):
                STRATEGIES[name](arena)
            arena = arena_of(model, share="1%")
            with pytest.raises(BudgetError):
                STRATEGIES[name](arena)
