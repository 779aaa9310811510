"""The methods against brute force, additive costs with a known optimum, and exact budgets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from secateur.allocation.mutation import mutate
from secateur.errors import BudgetError, UsageError
from secateur.evaluation.equality import load_strict
from secateur.model import Model, open_model
from secateur.pruning.removed import CHANNELS, LAYER, SCAN, Unit
from secateur.search.removal import replacement
from secateur.search.removal.found import greedy, one_shot
from secateur.search.removal.masked import Masked
from secateur.search.removal.places import Ground, counted, limited, parameters, places
from secateur.search.strategies import bonsai, evopress, exhaustive, logit_mse, shedder, shortgpt, sleb, streamline
from tests.contract.harness import Parent, build, distance, ids

from .additive import Additive


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """Ten layers of Mamba-2."""
    parent = build("mamba2", tmp_path_factory.mktemp("deep") / "parent", num_hidden_layers=10)
    with open_model(parent.folder) as model:
        yield model


@pytest.fixture(scope="module")
def work(deep: Model) -> Masked:
    return Masked(deep, torch.cat([ids(), ids().flip(1)]), batch=1)


def layers(model: Model, count: int) -> Ground:
    return counted(model, places(model.anatomy, "layer"), count)


def values(model: Model, seed: int) -> dict[Unit, float]:
    rng = np.random.default_rng(seed)
    return {Unit(i, part): float(v) for part in (LAYER, SCAN) for i, v in enumerate(rng.random(model.anatomy.n_layers))}


def cheapest(costs: dict[Unit, float], count: int) -> set[Unit]:
    return set(sorted((u for u in costs if u.part == LAYER), key=lambda u: costs[u])[:count])


# ---- greedy and one shot ------------------------------------------------------------------------------------------


def test_the_first_step_is_brute_force_and_every_other_too(work: Masked, deep: Model) -> None:
    found = greedy(work, layers(deep, 3), "nll")
    gone: set[Unit] = set()
    for step in found.steps:
        left = [Unit(i, LAYER) for i in range(10) if Unit(i, LAYER) not in gone]
        costs = Masked(deep, torch.cat([ids(), ids().flip(1)]), batch=4).costs([[*gone, u] for u in left])["nll"]
        best = left[int(costs.argmin())]
        assert step.gone == str(best) and step.cost == pytest.approx(float(costs.min()), abs=1e-5)
        gone.add(best)
    assert found.removal == gone and found.trials == 10 + 9 + 8


def test_greedy_is_never_below_the_best_of_all(work: Masked, deep: Model, record_property: Any) -> None:
    for count in (1, 2, 3):
        best, stepwise = exhaustive.find(work, layers(deep, count)), greedy(work, layers(deep, count), "kl")
        assert best.trials == math.comb(10, count)
        regret = stepwise.cost - best.cost
        record_property(f"greedy regret at {count} of 10 layers", regret)
        assert regret >= -1e-9 and (count > 1 or regret == pytest.approx(0, abs=1e-9))


def test_the_best_of_all_is_brute_force(work: Masked, deep: Model) -> None:
    trials = [frozenset(Unit(i, LAYER) for i in c) for c in itertools.combinations(range(10), 2)]
    costs = Masked(deep, torch.cat([ids(), ids().flip(1)]), batch=4).costs(trials)["kl"]
    best = exhaustive.find(work, layers(deep, 2))
    assert best.removal == trials[int(costs.argmin())] and best.cost == pytest.approx(float(costs.min()), rel=1e-4)
    with pytest.raises(UsageError, match="too many"):
        exhaustive.choices(counted(deep, places(deep.anatomy, "layer & scan & mamba"), 3))


def test_one_shot_takes_the_lowest_scores(work: Masked, deep: Model) -> None:
    found = shortgpt.find(work, layers(deep, 4))
    influence = work.influence([Unit(i, LAYER) for i in range(10)])
    assert found.removal == {Unit(int(i), LAYER) for i in influence.argsort()[:4]}
    assert found.details["influence"]["layer 3"] == [pytest.approx(float(influence[3]))]


def test_sleb_keeps_both_ends_and_logit_mse_goes_by_logits(work: Masked, deep: Model) -> None:
    where = sleb.inner(places(deep.anatomy, "layer"), 10)
    assert [p.name for p in where] == [f"layer {i}" for i in range(1, 9)]
    found = sleb.find(work, counted(deep, where, 8))
    assert found.measure == "nll" and found.removal == {Unit(i, LAYER) for i in range(1, 9)}
    mse = work.costs([[Unit(i, LAYER)] for i in range(10)])["mse"]
    first = logit_mse.find(work, layers(deep, 1))
    assert first.removal == {Unit(int(mse.argmin()), LAYER)} and first.cost == pytest.approx(float(mse.min()))


def test_what_the_config_cannot_say_is_passed_over(parents: dict[str, Parent]) -> None:
    """The only attention layer of a hybrid stays, however cheap."""
    with open_model(parents["nemotron_h"].folder) as model:
        n = model.anatomy.n_layers
        ground, only = layers(model, n - 1), model.anatomy.kinds.index(("attention",))
        costs = {Unit(i, LAYER): float(i != only) for i in range(n)}
        for found in (
            greedy(Additive(model, costs), ground, "kl"),  # type: ignore[arg-type]
            evopress.find(Additive(model, costs), ground, effort=evopress.Effort(generations=5)),  # type: ignore[arg-type]
            exhaustive.find(Additive(model, costs), ground),  # type: ignore[arg-type]
            bonsai.find(Additive(model, costs), ground),  # type: ignore[arg-type]
        ):
            assert found.removal == {Unit(i, LAYER) for i in range(n) if i != only}
        assert ground.removal(one_shot(ground, [[float(i != only)] for i in range(n)])) == found.removal
        with pytest.raises(BudgetError, match="nothing more"):
            greedy(Additive(model, costs), layers(model, n), "kl")  # type: ignore[arg-type]
        with pytest.raises(BudgetError, match="the pool has"):
            layers(model, n + 1)


# ---- Mamba-Shedder -------------------------------------------------------------------------------------------------


def test_pools_and_stages(deep: Model, parents: dict[str, Parent]) -> None:
    costs = values(deep, 0)
    pooled = shedder.find(Additive(deep, costs), shedder.stages(deep, "layer & scan:4"))  # type: ignore[arg-type]
    staged = shedder.find(Additive(deep, costs), shedder.stages(deep, "layer:2 + scan:2"))  # type: ignore[arg-type]
    assert len(pooled.removal) == len(staged.removal) == len(staged.steps) == 4
    assert [s.gone.split()[0] for s in staged.steps] == ["layer", "layer", "scan", "scan"]
    assert {u for u in staged.removal if u.part == LAYER} == cheapest(costs, 2)
    gone = {u.layer for u in staged.removal if u.part == LAYER}
    left = sorted((u for u in costs if u.part == SCAN and u.layer not in gone), key=lambda u: costs[u])
    assert {u for u in staged.removal if u.part == SCAN} == set(left[:2])
    for text in ("layer", "layer:x", "nonsense:2", ""):
        with pytest.raises(UsageError):
            shedder.stages(deep, text)


def test_channels_go_from_the_end_in_groups(parents: dict[str, Parent]) -> None:
    with open_model(parents["llama"].folder) as model:
        n = model.anatomy.sizes["f"]
        real = Masked(model, ids())
        found = shedder.find(real, shedder.stages(model, "channels:3", group=2))
        assert len(found.steps) == 3
        for unit in found.removal:
            assert unit.part == CHANNELS and unit.last == n and (n - unit.first) % 2 == 0
        assert sum(n - u.first for u in found.removal) == 6
        assert [s.cost for s in found.steps][-1] == pytest.approx(found.cost)


# ---- EvoPress ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5])
def test_it_finds_the_sorted_optimum_of_an_additive_fitness(count: int, deep: Model) -> None:
    for seed in range(3):
        costs = values(deep, seed)
        found = evopress.find(Additive(deep, costs), layers(deep, count), seed=seed)  # type: ignore[arg-type]
        assert found.removal == cheapest(costs, count)


def test_it_finds_what_enumeration_finds(work: Masked, deep: Model) -> None:
    for count in (1, 2, 3):
        best = exhaustive.find(work, layers(deep, count))
        effort = evopress.Effort(batches=(1, 4), fresh=False)
        found = evopress.find(work, layers(deep, count), effort=effort)
        assert found.removal == best.removal and found.cost == pytest.approx(best.cost)


def test_on_a_fixed_batch_the_fitness_never_rises(work: Masked, deep: Model) -> None:
    effort = evopress.Effort(generations=8, offspring=4, initial=2, batches=(1,), fresh=False)
    found = evopress.find(work, layers(deep, 4), effort=effort)
    losses = [s.cost for s in found.steps]
    assert len(losses) == 8 and all(b <= a for a, b in itertools.pairwise(losses))


def test_fresh_text_is_other_text_every_generation(deep: Model) -> None:
    """A parent that was lucky once is measured again: under noise alone it does not stay."""
    rng = np.random.default_rng(0)
    luck: dict[Any, float] = {}
    noisy = Additive(
        deep,
        dict.fromkeys(values(deep, 0), 0.0),
        batches=16,
        noise=lambda b, r: luck.setdefault((b, r), float(rng.random())),
    )
    effort = evopress.Effort(generations=12, offspring=8, initial=1, batches=(1, 1), fresh=True)
    changing = evopress.find(noisy, layers(deep, 3), effort=effort)  # type: ignore[arg-type]
    losses = [s.cost for s in changing.steps]
    assert any(b > a for a, b in itertools.pairwise(losses))


def test_it_repeats_itself_under_a_seed(work: Masked, deep: Model) -> None:
    effort = evopress.Effort(generations=3, offspring=4, batches=(1, 2))
    runs = [evopress.find(work, layers(deep, 3), effort=effort, seed=s).to_json() for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("name", ["llama", "bamba", "nemotron_h"])
def test_budgets_are_exact_under_every_mutation(name: str, parents: dict[str, Parent]) -> None:
    """Counted units stay the same number; live parameters never exceed the limit, and are what the units add up to."""
    with open_model(parents[name].folder) as model:
        kinds = sorted({k for kinds in model.anatomy.kinds for k in kinds})
        where = places(model.anatomy, " & ".join(kinds) + " & channels", group=2)
        total, rng = int(model.anatomy.count()), np.random.default_rng(0)
        for ground in (counted(model, where, 3), limited(model, where, int(0.8 * total))):
            choice = one_shot(ground, [[0.0] * len(p.levels) for p in where])
            seen = {choice}
            for _ in range(60):
                choice = mutate(ground.problem, choice, rng)
                seen.add(choice)
                gone = [p.levels[o - 1] for p, o in zip(where, choice, strict=True) if o]
                if ground.problem.resources[0].exact:
                    assert sum(choice) == 3
                else:
                    assert total - sum(parameters(u, model.anatomy) for u in gone) <= int(0.8 * total)
            assert len(seen) > 3


# ---- LLM-Streamline ------------------------------------------------------------------------------------------------


def test_the_window_is_the_one_that_turns_the_stream_least(work: Masked, deep: Model) -> None:
    with torch.no_grad():
        states: list[torch.Tensor] = []
        handles = [m.register_forward_pre_hook(lambda m, args: states.append(args[0])) for m in work.layers]
        handles.append(work.layers[9].register_forward_hook(lambda m, args, out: states.append(out)))
        work.whole(work.batches[0], use_cache=False)
    for handle in handles:
        handle.remove()
    assert len(states) == 11
    one = Masked(deep, work.batches[0])
    for n in (1, 3):
        want = [float(torch.cosine_similarity(states[i], states[i + n], dim=-1).mean()) for i in range(11 - n)]
        assert streamline.cosines(one, n).tolist() == pytest.approx(want, abs=1e-5)
    found = streamline.find(work, 3)
    scores = streamline.cosines(work, 3)
    first = int(scores.argmax())
    assert found.removal == {Unit(first + i, LAYER) for i in range(3)} and found.details["window"] == [first, first + 2]
    with pytest.raises(BudgetError):
        streamline.find(work, 10)


def test_a_replacement_learns_and_is_written_as_it_was_trained(deep: Model, tmp_path: Path) -> None:
    text = torch.randint(3, 97, (24, 32), generator=torch.Generator().manual_seed(0))
    work = Masked(deep, text)
    found = streamline.find(work, 2, replace=True)
    first, last = found.details["window"]
    lessons = replacement.Lessons(steps=80, rate=5e-3, last_rate=1e-3, check=20)
    made = replacement.train(work, first, last, lessons)
    assert made.after < made.before
    assert len(found.removal) == 2 and Unit(first, LAYER) not in found.removal
    again = replacement.train(work, first, last, lessons)
    assert again.after == made.after
    costs = replacement.costs(work, found.removal, made)
    assert costs["kl"] > 0 and costs["kl"] != pytest.approx(found.cost)
    child = replacement.write(work, found.removal, made, tmp_path / "child")
    assert child.anatomy.n_layers == 8
    with (
        torch.no_grad(),
        replacement.placed(work, made),
        replacement.removed(work.layers, deep.anatomy, found.removal, work.arity),
    ):
        want = work.whole(ids(), use_cache=False).logits.double()
    with torch.no_grad():
        got = load_strict(child.folder)(ids(), use_cache=False).logits.double()
    assert distance(want, got) < 1e-3


def test_an_untrained_replacement_is_the_first_layer(work: Masked, deep: Model) -> None:
    made = replacement.train(work, 4, 6, replacement.Lessons(steps=0))
    assert made.after == made.before
    gone = frozenset({Unit(5, LAYER), Unit(6, LAYER)})
    want = work.costs([gone])
    for what, value in replacement.costs(work, gone, made).items():
        assert value == pytest.approx(float(want[what][0]), rel=1e-4, abs=1e-6)


# ---- Bonsai --------------------------------------------------------------------------------------------------------


def test_the_regression_recovers_additive_values() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(9)
    masks = bonsai.sampled(9, 60, rng)
    assert set(masks.sum(1)) == {4.0, 5.0} and (masks[::2] + masks[1::2] == 1).all()
    got, tau = bonsai.regress(masks, masks @ truth - 3.0)
    assert tau > 0.95
    np.testing.assert_allclose(got - got.mean(), truth - truth.mean(), atol=5e-3)


def test_more_sub_models_rank_better() -> None:
    from scipy.stats import kendalltau

    found = []
    for count in (12, 48, 400):
        taus = []
        for seed in range(6):
            rng = np.random.default_rng(seed)
            truth, masks = rng.random(10), bonsai.sampled(10, count, rng)
            got, _ = bonsai.regress(masks, masks @ truth + 0.3 * rng.standard_normal(count))
            taus.append(kendalltau(got, truth).statistic)
        found.append(float(np.mean(taus)))
    assert found[0] < found[1] < found[2] and found[2] > 0.8


def test_bonsai_removes_the_cheapest_of_additive_units(deep: Model) -> None:
    costs = values(deep, 1)
    effort = bonsai.Effort(samples=40, share=0.3)
    work = Additive(deep, costs)
    work.influence = lambda units, **_: torch.tensor([costs[u] for u in units])  # type: ignore[method-assign]
    found = bonsai.find(work, layers(deep, 3), effort=effort)  # type: ignore[arg-type]
    assert found.removal == cheapest(costs, 3) and found.trials == 40
    asked = {u for r in work.asked[:-1] for u in r}
    assert len(asked) == 6, "only the lowest by the prior were ever tried"
