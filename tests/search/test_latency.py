"""The latency table: what is timed, what is predicted, what is refused. Time itself is never asserted."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from secateur.anatomy.sizes import expressible
from secateur.errors import SecateurError, UsageError
from secateur.evaluation.decode import prefill, step
from secateur.evaluation.load import Place
from secateur.model import Model, open_model
from secateur.pruning.configure import child_config
from secateur.search.budget import make_budget
from secateur.search.candidates import Space
from secateur.search.dials import dials
from secateur.search.latency import STEM, Kind, Reader, Sample, Table
from secateur.search.probe import Turns, _grid, build, measure
from secateur.search.resources import Workload
from secateur.search.schedule import LEAST_POINTS, kinds_of, representative, schedule, spread_points
from secateur.search.setting import setting_of
from secateur.search.surface import Surface
from tests.contract.harness import Parent

WORK = Workload(context=12, batch=2)
PLACE = Place("cpu", "float32")
QUICK = Turns(passes=1, prompts=1, tokens=1)
GRIDS = {
    "llama": {"hidden": (16, 32), "ffn": None},
    "nemotron_h": {"hidden": (32, 40), "ffn": (40, 52), "ssm_heads": (8, 12), "kv_heads": (2, 3)},
    "mamba2": {"hidden": (24, 32, 36, 48), "ssm_heads": (6, 8, 12)},
    "zamba2": {"ssm_state": None},
    "jamba": {"hidden": (20, 40), "ssm_channels": (40, 60, 80)},
}


class Operations:
    """A clock whose time is the number of operations done so far: it only moves while the model computes."""

    def __init__(self) -> None:
        self.counter = FlopCounterMode(display=False)

    def mark(self) -> float:
        return float(self.counter.get_total_flops())

    def seconds(self, start: float, end: float) -> float:
        return end - start


@pytest.fixture
def operations() -> Iterator[Operations]:
    clock = Operations()
    with clock.counter:
        yield clock


@pytest.mark.parametrize("name", list(GRIDS))
def test_blocks_and_stem_add_up_to_whole_models(name: str, parents: dict[str, Parent], operations: Operations) -> None:
    """At measured sizes the prediction is what the whole candidate, every layer of it, takes."""
    with open_model(parents[name].folder) as model:
        anatomy = model.anatomy
        table = measure(model, GRIDS[name], WORK, PLACE, turns=QUICK, clock=operations)
        reader, rng = Reader(table, model), np.random.default_rng(0)
        shapes = schedule(anatomy, _dials(model, table))
        for shape in [shapes[0], shapes[int(rng.integers(len(shapes)))]]:
            sizes = dict(anatomy.sizes)
            for symbol, size in shape.items():
                sizes |= dict.fromkeys(table.dials[symbol], size)
            for layers in (tuple(range(anatomy.n_layers)), parents[name].row.drops[0]):
                want = _whole(child_config(anatomy, sizes, layers), operations, sizes["v"])
                got = [reader.seconds(p, sizes, frozenset(layers)) for p in ("prefill", "decode")]
                assert got == pytest.approx(want, rel=1e-9), (shape, layers)


def _dials(model: Model, table: Table) -> list[Any]:
    """The dials of a table, at the sizes it holds."""
    seen: dict[str, set[int]] = {}
    for kind in table.kinds.values():
        for sample in kind.samples:
            for axis, size in zip(kind.axes, sample.sizes, strict=True):
                seen.setdefault(axis, set()).add(size)
    every = dials(model.anatomy)
    chosen = [d for d in every if d.axis.symbol in table.dials]
    return [dataclasses.replace(d, values=np.array(sorted(seen[d.axis.symbol]))) for d in chosen]


def _whole(raw: dict[str, Any], clock: Operations, vocabulary: int) -> list[float]:
    made = build(raw, PLACE)
    ids = torch.randint(vocabulary, (WORK.batch, WORK.context))
    marks = [clock.mark()]
    token, out = prefill(made, ids)
    marks.append(clock.mark())
    step(made, token, out)
    marks.append(clock.mark())
    return [b - a for a, b in itertools.pairwise(marks)]


def test_between_measured_sizes_prediction_follows_the_operations(
    parents: dict[str, Parent], operations: Operations
) -> None:
    with open_model(parents["llama"].folder) as model:
        anatomy = model.anatomy
        f = anatomy.sizes["f"]
        table = measure(
            model, {"hidden": (8, 16, 32), "ffn": (f // 4, f // 2, f)}, WORK, PLACE, turns=QUICK, clock=operations
        )
        every, sizes = tuple(range(anatomy.n_layers)), {**anatomy.sizes, "d": 24, "f": 3 * f // 4}
        want = _whole(child_config(anatomy, sizes, every), operations, sizes["v"])
        got = [Reader(table, model).seconds(p, sizes, frozenset(every)) for p in ("prefill", "decode")]
        assert got == pytest.approx(want, rel=0.05)


def test_arrays_of_candidates_are_predicted_like_single_ones(
    parents: dict[str, Parent], operations: Operations
) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        table = measure(model, GRIDS["nemotron_h"], WORK, PLACE, turns=QUICK, clock=operations)
        reader, sizes = Reader(table, model), model.anatomy.sizes
        d, f = np.array([[32], [36], [40]]), np.array([[40, 46, 52]])
        layers = frozenset((0, 1, 2))
        many = reader.seconds("decode", {**sizes, "d": d, "f": f}, layers)
        assert many.shape == (3, 3)
        for i, k in itertools.product(range(3), range(3)):
            one = reader.seconds("decode", {**sizes, "d": int(d[i, 0]), "f": int(f[0, k])}, layers)
            assert one == pytest.approx(many[i, k])
        with pytest.raises(UsageError, match=r"24 to 24 of axis 'd' .* covers 32 to 40"):
            reader.seconds("decode", {**sizes, "d": 24}, layers)
        with pytest.raises(UsageError, match="'n' was not varied"):
            reader.seconds("decode", {**sizes, "n": 10}, layers)


@pytest.mark.parametrize("name", list(GRIDS))
def test_the_schedule_shows_every_point_that_can_be_said(name: str, parents: dict[str, Parent]) -> None:
    with open_model(parents[name].folder) as model:
        anatomy, chosen = model.anatomy, dials(model.anatomy, GRIDS[name])
        shapes, kinds = schedule(anatomy, chosen), kinds_of(anatomy, chosen)
        want: dict[str, set[tuple[int, ...]]] = {n: set() for n in kinds}
        for values in itertools.product(*(d.values for d in chosen)):
            sizes = dict(anatomy.sizes)
            for dial, value in zip(chosen, values, strict=True):
                sizes |= dict.fromkeys(dial.symbols, int(value))
            if expressible(anatomy.family, sizes, anatomy.config, anatomy.live):
                for n, axes in kinds.items():
                    want[n].add(tuple(sizes[a] for a in axes))
        assert {n: {tuple(s[a] for a in axes) for s in shapes} for n, axes in kinds.items()} == want
        assert len(shapes) <= sum(map(len, want.values()))
        if name == "nemotron_h":
            assert len(shapes) == max(map(len, want.values()))
            assert kinds == {"": ("d",), "attention": ("d", "k"), "mamba": ("d", "h"), "mlp": ("d", "f"), "moe": ("d",)}


def test_where_the_config_ties_sizes_the_schedule_covers_what_it_can_say(tmp_path: Path) -> None:
    """Mamba-2's config says heads times their width as a whole multiple of the hidden size: of a grid of three sizes
    each, it can say four points, and all with the same number of heads."""
    raw = {"model_type": "mamba2", "architectures": ["Mamba2ForCausalLM"], "hidden_size": 192, "num_heads": 24}
    raw |= {"head_dim": 16, "n_groups": 4, "state_size": 32, "num_hidden_layers": 2, "vocab_size": 97, "expand": 2}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with open_model(tmp_path / "config.json") as model:
        axes = ["hidden", "ssm_head_dim", "ssm_heads"]
        full = dials(model.anatomy, axes)
        few = _grid(full, axes)
        assert len({s["h"] for s in schedule(model.anatomy, few)}) == 1
        shapes = schedule(model.anatomy, few, full)
    said = [p for p in itertools.product(*(d.values for d in full)) if 4 * p[1] * p[2] % p[0] == 0]
    for axis, values in zip("dph", zip(*said, strict=True), strict=True):
        seen = {s[axis] for s in shapes}
        assert (min(seen), max(seen)) == (min(values), max(values)) and len(seen) > 3
    assert LEAST_POINTS <= len(shapes) <= LEAST_POINTS + 3


def test_points_spread_from_those_that_are_given() -> None:
    line = {(n,) for n in range(1, 10)}
    assert spread_points([(9,)], line, 3) == [(9,), (5,), (1,)]
    assert spread_points([], line, 99) == sorted(line, reverse=True)
    assert spread_points([(4,)], line, 1) == [(9,), (4,), (1,)]
    assert spread_points([], set(), 3) == []


@pytest.mark.parametrize("name", ["nemotron_h", "zamba2", "jamba", "recurrent_gemma", "llama", "kimi_linear"])
def test_few_layers_show_every_kind(name: str, parents: dict[str, Parent]) -> None:
    with open_model(parents[name].folder) as model:
        layers = representative(model)
        assert {model.anatomy.kinds[i] for i in layers} == set(model.anatomy.kinds)
        child_config(model.anatomy, model.anatomy.sizes, layers)
        assert len(layers) <= model.anatomy.n_layers


def test_a_measured_point_comes_out_as_measured() -> None:
    rng = np.random.default_rng(0)
    points, causes, seconds = rng.random((9, 3)), rng.random((9, 2)), rng.random(9)
    surface = Surface(points, causes, seconds)
    assert surface(points, causes) == pytest.approx(seconds)
    # what is linear in parameters and operations is known everywhere
    linear = Surface(points, causes, 0.5 + causes @ np.array([2.0, 3.0]))
    other = rng.random((5, 2))
    assert linear(rng.random((5, 3)), other) == pytest.approx(0.5 + other @ np.array([2.0, 3.0]))


def fixed_table(model: Model) -> Table:
    """A table written by hand: hidden at two sizes, everything else one number."""
    kinds = {}
    for name, axes in kinds_of(model.anatomy, dials(model.anatomy, {"hidden": (20, 40)})).items():
        seconds = [(1e-3 * d, 2e-3 * d, 3e-3 * d) for d in (20, 40)]
        kinds[name] = Kind(axes, tuple(Sample((d,), s, s) for d, s in zip((20, 40), seconds, strict=True)))
    return Table(setting_of(model, WORK, PLACE), {"d": ("d",)}, kinds)


def test_tables_come_back_from_disk(parents: dict[str, Parent], tmp_path: Path) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        table = fixed_table(model)
        table.save(tmp_path / "table.json")
        again = Table.load(tmp_path / "table.json")
        assert again == table
        layers = frozenset(range(6))
        assert Reader(again, model).seconds("decode", {**model.anatomy.sizes, "d": 30}, layers) == pytest.approx(
            7 * 2e-3 * 30
        )


def test_a_table_of_another_machine_or_setting_is_refused(parents: dict[str, Parent]) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        table, here = fixed_table(model), setting_of(model, WORK, PLACE)
        table.check(here)
        for change in (
            {"torch": "1.0"},
            {"processor": "abacus"},
            {"dtype": "float16"},
            {"threads": 99},
            {"config": "0"},
        ):
            (field,) = change
            with pytest.raises(UsageError, match=f"measured elsewhere: here {field} .* there"):
                table.resources(dataclasses.replace(here, **change))
        with pytest.raises(UsageError, match="context 12 and batch 2, not 13 and 2"):
            make_budget(model, {"decode": "50%"}, Workload(13, 2), measured=table.resources(here))
    with open_model(parents["llama"].folder) as other, pytest.raises(UsageError, match="lacks the layer kinds"):
        Reader(table, other)


def test_latency_is_a_budget_like_any_other(parents: dict[str, Parent]) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        table = fixed_table(model)
        measured = table.resources(setting_of(model, WORK, PLACE), new=10)
        budget = make_budget(model, {"latency": "0.5x", "params": "90%"}, WORK, measured=measured)
        assert budget.limits[0].whole == pytest.approx(11 * 7 * 2e-3 * 40)
        space = Space(model, budget, axes={"hidden": (24, 32, 40)}, order=(0, 1, 3, 5))
        for candidate in space.random(np.random.default_rng(0), 3):
            costs = space.costs(candidate)
            n = len(candidate.layers) + 1
            assert costs["latency"] == pytest.approx(11 * n * 2e-3 * candidate.keep["hidden"])
            assert costs["latency"] <= budget.limits[0].amount


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(secateur_latency=9), "no latency table of version"),
        (lambda d: d.pop("kinds"), "damaged"),
        (lambda d: d["kinds"]["mlp"]["samples"][0].update(decode=[1, 2]), "damaged"),
        (lambda d: d["kinds"]["mlp"]["samples"][0].update(sizes=[40]), "two for one size"),
        (lambda d: d["kinds"]["mlp"]["samples"].clear(), "without samples"),
        (lambda d: d["setting"].update(threads="2"), "'threads' is '2'"),
        (lambda d: d.update(setting=3), "expected an object"),
    ],
)
def test_damaged_tables_are_refused(change: Any, message: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        data = fixed_table(model).to_json()
    change(data)
    (tmp_path / "table.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match=message):
        Table.load(tmp_path / "table.json")


def test_the_real_clock_measures_something(parents: dict[str, Parent]) -> None:
    steps: list[tuple[int, int]] = []
    with open_model(Path(parents["nemotron_h"].folder) / "config.json") as model:
        table = measure(
            model, {"hidden": (32, 40)}, WORK, PLACE, turns=Turns(2, 1, 2), progress=lambda i, n: steps.append((i, n))
        )
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert set(table.kinds) == {STEM, "mamba", "mlp", "attention", "moe"}
    for kind in table.kinds.values():
        assert kind.axes == ("d",) and [s.sizes for s in kind.samples] == [(32,), (40,)]
        for sample in kind.samples:
            for least, median, most in (sample.prefill, sample.decode):
                assert 0 < least <= median <= most


def test_what_cannot_run_says_why(parents: dict[str, Parent]) -> None:
    with open_model(parents["llama"].folder) as model:
        with pytest.raises(UsageError, match="at least one pass"):
            Turns(passes=0)
        with pytest.raises(UsageError, match="not on meta"):
            measure(model, ["ffn"], WORK, Place("meta", "float32"), turns=QUICK)

        class Broken(Operations):
            def mark(self) -> float:
                raise RuntimeError("out of memory\nand more")

        with pytest.raises(SecateurError, match=r"cannot run on cpu in float32: out of memory \(.*ffn="):
            measure(model, ["ffn"], WORK, PLACE, turns=QUICK, clock=Broken())
