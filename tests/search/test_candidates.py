"""Candidates: always sayable, always within every limit, and deterministic."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secateur.errors import BudgetError, InexpressibleError, UsageError
from secateur.model import Model, open_model
from secateur.pruning.budget import cost
from secateur.pruning.plan import make_plan
from secateur.search.budget import make_budget
from secateur.search.candidates import Candidate, Space, from_json
from secateur.search.dials import dials
from secateur.search.enumerate import grid, layer_chain
from secateur.search.resources import Workload
from tests.contract.harness import Parent
from tests.contract.rows import ROWS

QUICK = settings(
    deadline=None, database=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FAMILIES = [
    "nemotron_h", "mamba2", "mamba", "bamba", "jamba", "zamba2", "granitemoehybrid", "qwen3_next", "kimi_linear",
    "recurrent_gemma", "gemma3_text", "lfm2", "llama", "mixtral", "gpt2",
]  # fmt: skip
WORK = Workload(context=300, batch=2)


def space_of(model: Model, share: str = "80%") -> Space:
    """Parameters and cache limited at once, every axis and every layer free."""
    return Space(
        model, make_budget(model, {"params": share, "cache": "95%"}, WORK), order=range(model.anatomy.n_layers)
    )


def check(space: Space, candidate: Candidate) -> None:
    """A plan takes it, and what the plan costs keeps the budget."""
    plan = make_plan(space.model, keep=candidate.keep, layers=candidate.layers)
    assert plan.after == cost(space.model, space.sizes(candidate), candidate.layers)
    limits = {limit.resource.name: limit.amount for limit in space.budget.limits}
    assert plan.after.parameters <= limits["params"]
    state = plan.after.ssm_state + plan.after.conv_state
    assert 2 * state <= space.costs(candidate)["cache"] <= limits["cache"]
    assert space.can_be_said(candidate) and space.fits(candidate)
    assert from_json(candidate.to_json()) == candidate


@pytest.mark.parametrize("name", FAMILIES)
def test_every_candidate_can_be_planned(name: str, parents: dict[str, Parent]) -> None:
    with open_model(parents[name].folder) as model:
        space, rng = space_of(model), np.random.default_rng(0)
        found = space.random(rng, 4)
        assert found and len(set(found)) == len(found)
        for candidate in found:
            check(space, candidate)
            mutant = space.mutate(candidate, rng)
            check(space, mutant)
        for candidate in space.neighbours(found[0])[::7]:
            check(space, candidate)
        for candidate in grid(space, 5, most=5000).candidates:
            check(space, candidate)


@QUICK
@given(seed=st.integers(0, 10**6))
def test_mutations_keep_every_limit(seed: int, parents: dict[str, Parent]) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        space, rng = space_of(model), np.random.default_rng(seed)
        (candidate,) = space.random(rng, 1)
        moved = False
        for _ in range(6):
            mutant = space.mutate(candidate, rng)
            assert space.fits(mutant) and space.can_be_said(mutant)
            moved |= mutant != candidate
            candidate = mutant
        assert moved


def test_the_seed_decides(parents: dict[str, Parent]) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        runs = [space_of(model).random(np.random.default_rng(s), 5) for s in (0, 0, 1)]
        assert runs[0] == runs[1] != runs[2]
        space = space_of(model)
        twice = [space.mutate(runs[0][0], np.random.default_rng(7)) for _ in range(2)]
        assert twice[0] == twice[1]


def test_random_candidates_leave_no_room(parents: dict[str, Parent]) -> None:
    with open_model(parents["llama"].folder) as model:
        space = space_of(model)
        for candidate in space.random(np.random.default_rng(0), 5):
            assert not any(space.fits(c) for c in space.steps(candidate, down=False))


@pytest.mark.parametrize("name", ["nemotron_h", "mamba2", "jamba"])
def test_the_grid_is_the_largest_by_brute_force(name: str, parents: dict[str, Parent]) -> None:
    """Every combination of sizes and layers through the plan's own checks."""
    given = {
        "nemotron_h": {"hidden": (32, 40), "ffn": (40, 48, 52), "ssm_heads": (8, 12), "kv_heads": (2, 3)},
        "mamba2": {"hidden": (24, 32, 36, 48), "ssm_heads": (6, 8, 12), "ssm_head_dim": (4, 6, 8)},
        "jamba": {"hidden": (20, 40), "ssm_channels": (40, 60, 80), "ffn": (30, 52)},
    }[name]
    with open_model(parents[name].folder) as model:
        order = [i for i in range(model.anatomy.n_layers) if i not in (0, 2)]
        space = Space(model, make_budget(model, {"params": "85%"}), axes=given, order=order, least_layers=2)
        chain = layer_chain(space)
        want = []
        for values in itertools.product(*given.values()):
            for layers in chain:
                keep = dict(zip(given, values, strict=True))
                try:
                    plan = make_plan(model, keep=keep, layers=layers)
                except InexpressibleError:
                    continue
                if plan.after.parameters <= space.budget.limits[0].amount:
                    want.append((-plan.after.parameters, space.at(keep, layers)))
        found = grid(space, 7)
        assert found.fitting == len(want) and not found.note
        assert list(found.candidates) == [c for _, c in sorted(want)[:7]]
        assert list(grid(space, 1).candidates) == [min(want)[1]]  # also where not every shape is looked at


def test_a_thinned_grid_says_so_and_keeps_the_present_sizes(parents: dict[str, Parent]) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        space = space_of(model, "99%")
        found = grid(space, 3, most=300)
        assert "thinned" in found.note and found.seen <= 300 * len(layer_chain(space))


def test_neighbours_are_one_step_or_one_exchange_away(parents: dict[str, Parent]) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        budget = make_budget(model, {"params": "90%"})
        space = Space(model, budget, axes={"hidden": (24, 32, 40), "ffn": (36, 44, 52)}, order=(1, 5))
        here = space.at({"hidden": 32, "ffn": 44}, (0, 2, 3, 4, 5))
        assert space.fits(here)
        want = set()
        steps = {"hidden": (24, 32, 40), "ffn": (36, 44, 52)}
        layers = {"5": (0, 2, 3, 4), "": (0, 2, 3, 4, 5), "1": (0, 1, 2, 3, 4, 5), "both": (0, 1, 2, 3, 4)}
        for h, f, (which, kept) in itertools.product(steps["hidden"], steps["ffn"], layers.items()):
            down = (h < 32) + (f < 44) + (which in ("5", "both"))
            up = (h > 32) + (f > 44) + (which in ("1", "both"))
            candidate = space.at({"hidden": h, "ffn": f}, kept)
            if down <= 1 and up <= 1 and down + up and space.fits(candidate):
                want.add(candidate)
        assert set(space.neighbours(here)) == want


def test_budgets_that_cannot_be_met_name_the_smallest_shape(parents: dict[str, Parent]) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        space = Space(model, make_budget(model, {"params": "1%", "cache": "95%"}), axes=["ffn"])
        with pytest.raises(BudgetError, match=r"smallest reachable takes params [\d,]+ of .*cache .*ffn="):
            grid(space, 3)
        with pytest.raises(BudgetError, match="smallest reachable"):
            space.random(np.random.default_rng(0), 1)


def test_dials_follow_the_config(parents: dict[str, Parent]) -> None:
    with open_model(parents["jamba"].folder) as model:
        names = [d.axis.name for d in dials(model.anatomy)]
        assert "ffn" in names and "expert_ffn" not in names and "vocab" not in names  # one field sizes both
    with open_model(parents["bamba"].folder) as model:
        assert "head_dim" not in [d.axis.name for d in dials(model.anatomy)]
        with pytest.raises(InexpressibleError, match="rotary"):
            dials(model.anatomy, ["head_dim"])
        with pytest.raises(UsageError, match=r"expected multiples of 2 from 2 to 12"):
            dials(model.anatomy, {"ssm_heads": [7]})
        with pytest.raises(UsageError, match="no axis called"):
            dials(model.anatomy, ["heads"])
        groups = dials(model.anatomy, ["ssm_heads", "ssm_groups"])
        assert [d.axis.name for d in groups] == ["ssm_groups", "ssm_heads"]


def test_bad_orders_and_names_are_refused(parents: dict[str, Parent]) -> None:
    with open_model(parents["llama"].folder) as model:
        budget = make_budget(model, {"params": "50%"})
        with pytest.raises(UsageError, match="distinct indices"):
            Space(model, budget, order=(0, 0))
        with pytest.raises(UsageError, match="does not turn ffn"):
            Space(model, budget, axes=["hidden"]).at({"ffn": 8})


def test_a_lone_config_is_enough(parents: dict[str, Parent]) -> None:
    model = open_model(Path(parents["nemotron_h"].folder) / "config.json")
    assert ROWS["nemotron_h"] and space_of(model).random(np.random.default_rng(0), 1)
