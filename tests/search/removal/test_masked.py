"""Removal in memory against plain ways of doing the same, and the kept states that save time against none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secateur.errors import InexpressibleError, UsageError
from secateur.importance.depth import Skipping
from secateur.model import open_model
from secateur.pruning.removed import CHANNELS, LAYER, SCAN, Unit, canonical, parse_unit, split
from secateur.search.removal.masked import Masked
from secateur.search.removal.places import NOTHING, counted, limited, parameters, places
from tests.contract.harness import Parent, double_precision, ids, write
from tests.importance.plain import measure as statistics


def test_nothing_removed_is_the_model_itself(parents: dict[str, Parent]) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        work = Masked(model, ids(), batch=1)
        costs = work.costs([NOTHING])
        assert all(float(v) == 0 for v in costs.values())
        with torch.no_grad():
            want = work.whole(ids(), use_cache=False).logits
        torch.testing.assert_close(work.logits(1, ())[0], want[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "nemotron_h", "falcon_h1", "zamba2"])
def test_layers_cost_what_skipping_them_costs(name: str, parents: dict[str, Parent]) -> None:
    """Against :class:`Skipping`, which runs everything every time; also from a base that shares little."""
    with double_precision(), open_model(parents[name].folder) as model:
        n = model.anatomy.n_layers
        trials = [(i,) for i in range(n)] + [(0, n - 1), (1, 2)]
        want = Skipping(model, ids(), dtype=torch.float64).costs(trials)
        work = Masked(model, ids(), batch=1, dtype=torch.float64)
        units = [[Unit(i, LAYER) for i in t] for t in trials]
        for base in ((), (Unit(2, LAYER),)):
            again = Masked(model, ids(), batch=1, dtype=torch.float64) if base else work
            got = again.costs(units, base=base)
            for what in ("kl", "nll"):
                torch.testing.assert_close(got[what], want[what], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("room", [1 << 30, 1])
def test_kept_states_change_the_time_only(room: int, parents: dict[str, Parent]) -> None:
    """Every trial from every base equals a fresh evaluation; with room for them, only what differs is computed."""
    with double_precision(), open_model(parents["nemotron_h"].folder) as model:
        trials = [[Unit(i, LAYER), Unit(j, LAYER)] for i in range(5) for j in range(i + 1, 6)]
        trials += [[Unit(0, SCAN), Unit(4, LAYER)], [Unit(4, LAYER)], []]
        fresh = [Masked(model, ids(), dtype=torch.float64).costs([t])["mse"] for t in trials]
        work = Masked(model, ids(), dtype=torch.float64, room=room)
        for base in ([Unit(3, LAYER)], [Unit(0, LAYER), Unit(1, LAYER)], [], [Unit(5, LAYER)]):
            work._known.clear()
            got = work.costs(trials, base=base)["mse"]
            torch.testing.assert_close(got, torch.cat(fresh), rtol=1e-9, atol=1e-12)
        work._known.clear()
        work.costs([[]], base=[])
        before = work.layers_run
        work.costs([[Unit(5, LAYER)], [Unit(4, LAYER)], [Unit(0, LAYER)]], base=[])
        assert work.layers_run - before == (0 + 1 + 5 if room > 1 else 15)
        work.costs([[Unit(5, LAYER)], [Unit(4, LAYER)]], base=[])
        assert work.layers_run - before == (6 if room > 1 else 15), "what is known is not measured again"


def test_a_block_that_writes_nothing_costs_nothing(parents: dict[str, Parent], tmp_path: Path) -> None:
    parent, tensors = parents["nemotron_h"], {n: t.clone() for n, t in parents["nemotron_h"].tensors.items()}
    tensors[parent.anatomy.layer_prefix(0) + "mixer.out_proj.weight"].zero_()
    folder = write(tmp_path / "silent", parent.anatomy.raw, tensors)
    with double_precision(), open_model(folder) as model:
        work = Masked(model, ids(), dtype=torch.float64)
        costs = work.costs([[Unit(0, LAYER)], [Unit(0, SCAN)], [Unit(1, LAYER)]])
        assert all(abs(float(v[i])) < 1e-12 for v in costs.values() for i in (0, 1))
        assert float(costs["kl"][2]) > 1e-6
        influence = work.influence([Unit(0, LAYER), Unit(1, LAYER)])
        assert abs(float(influence[0])) < 1e-12 and float(influence[1]) > 1e-6


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_a_scan_that_is_the_identity_costs_nothing(name: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    """C = 0 and D = 1 in the weights: y = x already."""
    parent, tensors = parents[name], {n: t.clone() for n, t in parents[name].tensors.items()}
    prefix, sizes = parent.anatomy.layer_prefix(0) + "mixer.", parent.anatomy.sizes
    tensors[prefix + "D"].fill_(1.0)
    n = sizes["n"] * sizes.get("g", 1)
    ends = ["x_proj.weight"] if name == "mamba" else ["conv1d.weight", "conv1d.bias"]
    for end in ends:
        tensors[prefix + end][-n:] = 0
    folder = write(tmp_path / "identity", parent.anatomy.raw, tensors)
    with double_precision(), open_model(folder) as model:
        costs = Masked(model, ids(), dtype=torch.float64).costs([[Unit(0, SCAN)], [Unit(1, SCAN)]])
    assert float(costs["mse"][0]) < 1e-20 < 1e-6 < float(costs["mse"][1])


@pytest.mark.parametrize("name", ["llama", "mamba2", "falcon_h1"])
def test_influence_of_layers_is_block_influence(name: str, parents: dict[str, Parent]) -> None:
    from secateur.importance.depth import layer_scores

    stats = statistics(parents[name].folder)
    with double_precision(), open_model(parents[name].folder) as model:
        want = layer_scores(model.anatomy, stats, "block-influence")
        work = Masked(model, ids(), batch=1, dtype=torch.float64)
        got = work.influence([Unit(i, LAYER) for i in range(model.anatomy.n_layers)])
    assert got.tolist() == pytest.approx(want, rel=1e-6, abs=1e-9)


def test_the_model_is_as_it_was_afterwards(parents: dict[str, Parent]) -> None:
    with open_model(parents["bamba"].folder) as model:
        work = Masked(model, ids())
        with torch.no_grad():
            before = work.whole(ids(), use_cache=False).logits
        pool = places(model.anatomy, "layer & mamba & mlp & attention & scan & channels")
        work.costs([[u] for p in pool for u in p.levels])
        assert all("forward" not in vars(m) and not m._forward_hooks for m in work.whole.modules())
        with torch.no_grad():
            assert torch.equal(work.whole(ids(), use_cache=False).logits, before)


def test_a_removed_scan_does_not_pretend_to_decode(parents: dict[str, Parent]) -> None:
    from secateur.search.removal.silent import removed

    with open_model(parents["mamba2"].folder) as model:
        work = Masked(model, ids())
        with removed(work.layers, model.anatomy, [Unit(0, SCAN)], {}), pytest.raises(UsageError, match="prune"):
            work.whole(ids(), use_cache=True)


# ---- units ------------------------------------------------------------------------------------------------------


def test_units_are_named_and_read_back(parents: dict[str, Parent]) -> None:
    anatomy = parents["bamba"].anatomy
    for unit in (Unit(1, LAYER), Unit(0, SCAN), Unit(0, "ffn"), Unit(0, CHANNELS, 2, 5), Unit(0, CHANNELS, 0, 1)):
        assert parse_unit(str(unit), anatomy) == unit
    for text, why in {
        "layer": "expected", "layer 99": "layers are 0 to", "gate 0": "has none", "channels 0": "expected",
        "layer 0:1-2": "expected", "channels 0:0-9999": "within", "": "expected", "channels 0:5-2": "within",
    }.items():  # fmt: skip
        with pytest.raises(UsageError, match=why):
            parse_unit(text, anatomy)
    with pytest.raises(UsageError, match="has none"):
        parse_unit("scan 0", parents["llama"].anatomy)
    shared = next(i for i in parents["zamba2"].anatomy.shared_users)
    with pytest.raises(InexpressibleError, match="shares"):
        parse_unit(f"mixer {shared}", parents["zamba2"].anatomy)


def test_the_fewest_units_that_say_the_same(parents: dict[str, Parent]) -> None:
    anatomy = parents["bamba"].anatomy
    slots = [s.name for s in anatomy.family.slots]
    assert canonical([Unit(0, s) for s in slots], anatomy) == {Unit(0, LAYER)}
    assert canonical([Unit(0, SCAN), Unit(0, LAYER)], anatomy) == {Unit(0, LAYER)}
    assert canonical([Unit(0, SCAN), Unit(0, "mixer")], anatomy) == {Unit(0, "mixer")}
    apart = {Unit(0, SCAN), Unit(0, "ffn"), Unit(1, CHANNELS, 1, 3)}
    assert canonical(apart, anatomy) == apart
    layers, inside = split([*apart, Unit(1, LAYER)], anatomy)
    assert 1 not in layers and inside == (Unit(0, "ffn"), Unit(0, SCAN))


@pytest.mark.parametrize("name", ["nemotron_h", "llama", "granitemoehybrid", "falcon_h1", "zamba2", "jamba", "gpt2"])
def test_pools_follow_from_the_anatomy(name: str, parents: dict[str, Parent]) -> None:
    anatomy = parents[name].anatomy
    assert len(places(anatomy, "layer")) == anatomy.n_layers
    total = sum(parameters(u, anatomy) for p in places(anatomy, "layer") for u in p.levels)
    outside = sum(g.count(anatomy.sizes) for g in anatomy.groups if g.layers is None)
    assert total + outside == anatomy.count()
    for kind in {k for kinds in anatomy.kinds for k in kinds}:
        found = [u for p in places(anatomy, kind) for u in p.levels] if kind != "hybrid" else []
        assert all(kind in anatomy.kinds[u.layer] for u in found)
    with pytest.raises(UsageError, match="nothing called 'frobnicator'"):
        places(anatomy, "layer & frobnicator")


def test_budgets_count_units_or_parameters(parents: dict[str, Parent]) -> None:
    with open_model(parents["bamba"].folder) as model:
        pool = places(model.anatomy, "mlp & channels", group=3)
        ground = counted(model, pool, 3)
        assert not ground.fits(ground.nothing) and ground.fits((1, 1, 1, *ground.nothing[3:]))
        twice = tuple(int(p.name in ("ffn 0", "channels 0")) for p in pool)
        assert not ground.allowed(twice), "channels of an MLP that is gone anyway"
        whole = int(model.anatomy.count())
        first = parameters(pool[0].levels[0], model.anatomy)
        one = (1, *ground.nothing[1:])
        assert limited(model, pool, whole - first).fits(one)
        assert not limited(model, pool, whole - first - 1).fits(one)
