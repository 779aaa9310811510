"""The scale benchmarks at toy size: shapes that can be said, models that run, fits that find what was put in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.common.units import append, read
from benchmarks.scale import fit, growth, laptop, plot, shape, table
from benchmarks.scale.growth import Point

from secateur.anatomy.anatomy import Anatomy
from secateur.cost import Machine
from secateur.cost.predict import terms
from secateur.evaluation.equality import load_strict
from secateur.model import open_model
from secateur.pruning.plan import make_plan


@pytest.mark.parametrize("scale", [0.02, 0.04, 0.1, 0.25, 0.5, 1.0])
def test_every_scale_is_a_shape_and_can_be_cut(scale: float, tmp_path: Path) -> None:
    raw = shape.config(scale)
    anatomy = Anatomy(raw)
    assert {k for kinds in anatomy.kinds for k in kinds} == {"mamba", "mlp", "attention"}
    assert scale < 1 or 8.0e9 < anatomy.count() < 8.3e9
    (tmp_path / "config.json").write_text(json.dumps(raw))
    made = make_plan(open_model(tmp_path / "config.json"), keep=shape.keep(raw))
    assert 0.4 < made.after.parameters / made.before.parameters < 0.75


@pytest.mark.parametrize("point", growth.points(quick=False), ids=str)
def test_every_point_is_a_shape_and_can_be_cut(point: Point, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(point.config))
    model = open_model(tmp_path / "config.json")
    assert model.anatomy.n_layers == point.layers and model.anatomy.sizes["d"] == point.hidden
    make_plan(model, keep=shape.keep(point.config))


def test_its_weights_look_trained_and_run(tmp_path: Path) -> None:
    shape.make(tmp_path / "parent", tmp_path / "text.txt", 0.02)
    model = load_strict(tmp_path / "parent")
    weights = dict(model.named_parameters())
    decay = next(p.detach() for n, p in weights.items() if n.endswith("A_log"))
    assert float(decay.min()) >= 0 and float(decay.max()) < 2.8
    embedding = model.get_input_embeddings().weight
    columns = embedding.detach().square().mean(0).sqrt()
    assert int((columns > 3 * columns.median()).sum()) == shape.OUTLIERS
    with torch.no_grad():
        logits = model(torch.randint(0, 256, (2, 64)), use_cache=False).logits
    assert bool(torch.isfinite(logits).all()) and 0.1 < float(logits.std()) < 100
    assert len((tmp_path / "text.txt").read_text()) > 50_000


def test_the_fit_finds_what_was_put_in(tmp_path: Path) -> None:
    results, rates = tmp_path / "growth.jsonl", Machine(5e10, 1e9, 1e9, 1e9)
    append(results, {"settings": {"unit": "machine"}, "result": rates.to_json()})
    true = {"start": 4.0, "compute": 2.5, "hash": 0.0, "cast": fit.CAST}
    for p in growth.points(quick=False):
        each = terms(fit.works(p)["calibrate"], rates)
        seconds = p.ranks * sum(true[t] * each[t] for t in true)
        settings = {"verb": "calibrate", **growth.asdict(p)}
        append(results, {"settings": settings, "result": {"cpu_seconds": seconds, "peak_bytes": 5e8}})
    found = fit.fit(results)["calibrate"]
    assert all(found[t] == pytest.approx(true[t], rel=1e-3, abs=1e-3) for t in true)
    shown = [row.split(" | ") for row in table.points(results).splitlines()[2:]]
    assert len(shown) == len(growth.points(quick=False))
    assert all(abs(float(row[1]) - float(row[2])) < 0.2 for row in shown)
    drawn = plot.draw(results)
    assert "<svg" in drawn and "calibrate</text>" in drawn and "hidden</text>" in drawn
    assert table.forecast(results).count("\n") == 1 + 15


def line(stage: str, **result: Any) -> dict[str, Any]:
    told = {"seconds": 10.0, "least": 8.0, "ratio": 1.25, "peak_bytes": 1e9, "limit_bytes": 2e9}
    return {
        "settings": {"stage": stage},
        "result": {**told, "least_forward": 5.0, "least_read": 3.0, "least_write": 0.0, **result},
    }


def test_a_row_tells_whether_a_kill_changed_anything() -> None:
    again = {"killed_after": 3.0, "again_seconds": 7.0}
    text = laptop.table(
        [line("calibrate", same_bits=True, **again), line("eval", same_bits=False, **again), line("plan")]
    )
    rows = text.splitlines()[2:]
    assert "same bits" in rows[0] and "DIFFERS" in rows[1] and rows[2].endswith("| - |")


@pytest.mark.slow
@pytest.mark.long
def test_the_road_at_toy_size(tmp_path: Path) -> None:
    told: list[str] = []
    size = ["--scale", "0.02", "--samples", "4", "--length", "32", "--limit-mib", "1536"]
    code = laptop.main([*size, "--folder", str(tmp_path / "work"), "--results", str(tmp_path / "r.jsonl")], told.append)
    assert code == 0, told
    stages = [entry["settings"]["stage"] for entry in read(tmp_path / "r.jsonl")]
    assert stages == ["calibrate", "plan", "prune", "repair", "eval"]
    assert not (tmp_path / "work").exists()
