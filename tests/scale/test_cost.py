"""What a run will take: counted against plain loops, and told before anything is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.scale import shape

from secateur.anatomy import layout as lo
from secateur.cost import Load, Machine, predict, price, work
from secateur.cost import machine as machine_code
from secateur.cost.work import Shape
from secateur.model import Model, open_model
from tests.cli.command import done

MACHINE = Machine(flops=1e11, read=1e9, write=5e8, hash=1e9)


def config(folder: Path, scale: float = 0.05, **over: Any) -> Model:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**shape.config(scale), **over}))
    return open_model(folder / "config.json")


def test_a_shape_is_what_its_tensors_are(tmp_path: Path) -> None:
    model = config(tmp_path / "m")
    anatomy = model.anatomy
    found = Shape.of(model, anatomy.sizes, frozenset(range(anatomy.n_layers)), 64)
    entries = {n: lo.numel(d.layout, anatomy.sizes) for n, d in anatomy.tensors.items()}
    layers = range(anatomy.n_layers)
    assert found.parameters == sum(entries.values()) and found.nbytes == 2 * found.parameters
    assert found.block == max(sum(entries[n] for n, d in anatomy.tensors.items() if d.layer == i) for i in layers)
    assert found.tensor_bytes == 2 * max(entries.values())
    assert found.writer == max(
        lo.shape(d.layout, anatomy.sizes)[1]
        for d in anatomy.tensors.values()
        if d.key.endswith(("out_proj.weight", "down_proj.weight", "o_proj.weight"))
    )
    matrices = sum(
        entries[n] for n, d in anatomy.tensors.items() if d.layer is not None and len(d.layout.dims) == 2
    )  # the rest (attention, recurrence) is small at 64 tokens
    assert 2 * matrices < found.per_token < 2.5 * matrices


@pytest.mark.parametrize(("axis", "grows"), [("layers", 2.0), ("tokens", 2.0), ("ranks", 0.5)])
def test_work_grows_as_it_must(axis: str, grows: float, tmp_path: Path) -> None:
    small = config(tmp_path / "a", hybrid_override_pattern="M-*-", num_hidden_layers=4)
    big = config(tmp_path / "b", hybrid_override_pattern="M-*-" * 2, num_hidden_layers=8)
    load = Load(samples=8, length=64)

    def calibrating(model: Model, load: Load) -> Any:
        a = model.anatomy
        return work(model, a.sizes, frozenset(range(a.n_layers)), load)["calibrate"]

    once = calibrating(small, load)
    other = {
        "layers": lambda: calibrating(big, load),
        "tokens": lambda: calibrating(small, Load(samples=16, length=64)),
        "ranks": lambda: calibrating(small, Load(samples=8, length=64, ranks=2)),
    }[axis]()
    assert other.flops == pytest.approx(grows * once.flops, rel=1e-6)
    if axis == "layers":
        assert other.memory == once.memory, "a streamed walk holds one block, however many there are"


def test_prices_are_sums_of_their_terms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = config(tmp_path / "m")
    todo = work(model, model.anatomy.sizes, frozenset(range(model.anatomy.n_layers)), Load())
    monkeypatch.setattr(predict, "_fitted", lambda: {"prune": {"start": 3.0, "disk": 2.0, "hash": 0.0, "compute": 0.0}})
    found = price("prune", todo["prune"], MACHINE)
    nbytes = 2 * model.anatomy.count()
    assert found.seconds == pytest.approx(3 + 2 * (2 * nbytes / 1e9 + nbytes / 5e8))
    assert price("prune", todo["prune"], Machine(1e11, 1e12, 1e12, 1e12)).seconds == pytest.approx(3, rel=1e-2)


def test_distilling_holds_adam_and_shards_it(tmp_path: Path) -> None:
    model = config(tmp_path / "m", scale=0.2)
    layers, sizes = frozenset(range(model.anatomy.n_layers)), model.anatomy.sizes
    one, four = (work(model, sizes, layers, Load(ranks=r))["distill"].memory for r in (1, 4))
    cached = work(model, sizes, layers, Load(top_k=64))["distill"]
    parameters = model.anatomy.count()
    assert one - four == pytest.approx(20 * parameters * 3 / 4, rel=1e-6)
    assert one - cached.memory == pytest.approx(4 * parameters, rel=1e-6)
    assert cached.disk > 20_000_000 * 64 * 4


def test_the_probe_measures_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "FILE", 16 << 20)
    monkeypatch.setattr(machine_code, "HASH", 1 << 20)
    found = machine_code.probe(tmp_path)
    assert all(v > 1e6 for v in found.to_json().values()) and not list(tmp_path.iterdir())


def test_plan_says_it_from_a_config_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.cost.probe", lambda folder=None: MACHINE)
    config(tmp_path / "m")
    argv = ["plan", tmp_path / "m" / "config.json", "--params", "60%", "--cost", "--tokens", "1B"]
    told = done(*argv).out
    for word in ("calibrate", "distill", "GPU-hours", "hours here", "100 GFLOP/s"):
        assert word in told
    found = done(*argv, "--json").json["cost"]
    assert set(found["steps"]) == {"calibrate", "prune", "repair", "eval", "distill"}
    more = done(*argv, "--processes", "2", "--json").json["cost"]
    assert more["steps"]["distill"]["memory"] < found["steps"]["distill"]["memory"]
    assert found["load"]["train_tokens"] == 10**9
