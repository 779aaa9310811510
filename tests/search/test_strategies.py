"""Every strategy: the same answer under a seed, within the budget to the unit, resumed to the same end, and a plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from secateur.errors import BudgetError
from secateur.evaluation.equality import verify
from secateur.model import open_model
from secateur.pruning.plan import load_plan
from secateur.pruning.run import Settings, prune
from secateur.search.arena import Arena
from secateur.search.journal import key
from secateur.search.strategies import STRATEGIES, Outcome, uniform
from tests.contract.harness import Parent

from .arenas import EFFORT, Counted, arena_of, statistics

ROWS = [
    ("evolutionary", "nemotron_h"),
    ("minitron", "llama"),
    ("darwinlm", "llama"),
    ("search-llm", "nemotron_h"),
    ("multipruner", "nemotron_h"),
    ("compressor", "nemotron_h"),
    ("ten-largest", "llama"),
    ("uniform", "mamba2"),
    ("uniform", "nemotron_h"),
]
MORE = [("evolutionary", "llama"), ("minitron", "nemotron_h"), ("search-llm", "llama"), ("multipruner", "llama")]

MEASURE_THEIR_WAY_DOWN = ("multipruner", "shedder", "sleb", "bonsai")


def told(arena: Arena, outcome: Outcome) -> tuple[object, ...]:
    """What a search says, without times."""
    scores = [(key(shape, stage), score.kl) for (shape, stage), score in arena.scores.items()]
    return outcome.winner, outcome.stage, outcome.agreements, scores


@pytest.mark.parametrize(("name", "family"), [*ROWS, *(pytest.param(*row, marks=pytest.mark.long) for row in MORE)])
def test_strategy(name: str, family: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    with open_model(parents[family].folder) as model:
        arena = arena_of(model, work=tmp_path / "work")
        outcome = STRATEGIES[name](arena)
        for (shape, _), score in arena.scores.items():
            plan = arena.plan(shape)
            within = plan.after.parameters <= arena.space.budget.limits[0].amount
            assert within or name in MEASURE_THEIR_WAY_DOWN
            assert score.seconds >= 0
        winner = arena.plan(outcome.winner, ["from a test"])
        assert winner.after.parameters <= arena.space.budget.limits[0].amount
        assert (outcome.winner, outcome.stage) in arena.scores

        again = arena_of(model)
        assert told(again, STRATEGIES[name](again)) == told(arena, outcome), "not deterministic under its seed"

        resumed = arena_of(model, work=tmp_path / "work")
        counted = Counted(resumed)
        assert told(resumed, STRATEGIES[name](resumed)) == told(arena, outcome)
        assert counted.calls == 0, "something in the journal was measured again"
        assert resumed.spent == pytest.approx(arena.spent)

        winner.save(tmp_path / "plan.json")
        read = load_plan(tmp_path / "plan.json", model)
        assert (read.keep, read.layers, read.kept) == (winner.keep, winner.layers, winner.kept)
        cutting = Settings(score=arena.bench.criterion)
        with prune(model, read, tmp_path / "child", cutting, stats=statistics(model)) as child:
            assert child.anatomy.count() == winner.after.parameters
            if not set(model.anatomy.family.functional) & model.anatomy.live:  # a mask cannot silence experts
                assert verify(model, child).holds


def test_stages_read_the_checkpoint_that_prune_writes(parents: dict[str, Parent], tmp_path: Path) -> None:
    """The KL a search reports is that of the plan's checkpoint, by plain transformers."""
    from secateur.evaluation.equality import load_strict

    with open_model(parents["nemotron_h"].folder) as model:
        for name in ("evolutionary", "search-llm"):
            arena = arena_of(model, effort=replace(EFFORT, generations=1))
            arena.bench.lessons = None  # search-llm ranks by the plain cut then
            outcome = STRATEGIES[name](arena)
            cutting = Settings(score=arena.bench.criterion)
            with prune(model, arena.plan(outcome.winner), tmp_path / name, cutting, stats=statistics(model)):
                pass
            kl, nll = arena.bench.compare(load_strict(tmp_path / name), outcome.stage.windows)
            found = arena.scores[outcome.winner, outcome.stage]
            assert (found.kl, found.nll) == (pytest.approx(kl, rel=1e-4), pytest.approx(nll, rel=1e-4))


def test_without_tokens_to_train_on_darwinlm_is_the_evolutionary_strategy(parents: dict[str, Parent]) -> None:
    with open_model(parents["llama"].folder) as model:
        arenas = [arena_of(model) for _ in range(2)]
        first, second = (STRATEGIES[n](a) for n, a in zip(("evolutionary", "darwinlm"), arenas, strict=True))
        assert told(arenas[0], first) == told(arenas[1], second)


def test_darwinlm_throws_its_trained_copies_away(parents: dict[str, Parent]) -> None:
    with open_model(parents["llama"].folder) as model:
        arena = arena_of(model, effort=replace(EFFORT, generations=1, heal=96))
        before = {n: p.clone() for n, p in arena.bench.whole.named_parameters()}
        STRATEGIES["darwinlm"](arena)
        assert {stage.heal for _, stage in arena.scores} >= {48, 96}
        assert all(p.equal(before[n]) and p.grad is None for n, p in arena.bench.whole.named_parameters())


def test_uniform_is_as_even_as_steps_allow(parents: dict[str, Parent]) -> None:
    """No single step makes the shares that are kept more even and stays in the budget."""
    with open_model(parents["llama"].folder) as model:
        space = arena_of(model, share="60%").space
        found, whole = uniform.scaled(space), space.whole().keep
        assert space.fits(found) and found.layers == space.whole().layers
        assert not any(space.fits(c) and c.layers == found.layers for c in space.steps(found, down=False))
        shares = [found.keep[n] / whole[n] for n in whole]
        assert max(shares) < 1 or min(shares) == 1


def test_a_budget_that_nothing_fits_is_refused(parents: dict[str, Parent]) -> None:
    with open_model(parents["llama"].folder) as model:
        for name in STRATEGIES:
            with pytest.raises(BudgetError):
                STRATEGIES[name](arena_of(model, share="0.01%"))
