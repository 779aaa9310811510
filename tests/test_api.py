"""The Python interface of the README, called as a user calls it: the whole road, and what ends it early."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import secateur as sc
from secateur.api import cut
from secateur.demo.hybrid import build
from tests.cli.command import done
from tests.train import tiny

TEXT = dict(samples=8, length=32)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repairs on little text, unless a test says how much."""
    monkeypatch.setattr(cut, "REPAIR_SAMPLES", TEXT["samples"])
    monkeypatch.setattr(cut, "REPAIR_LENGTH", TEXT["length"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny hybrid and text for it. Nobody may write into ``parent``."""
    folder = tmp_path_factory.mktemp("place")
    tiny.parent(folder / "parent", "nemotron_h")
    tiny.text(folder, words=6000)
    return folder


def test_open_plan_prune_twice(tmp_path: Path) -> None:
    """A second call works like the first: no module of the package hides a function."""
    parent = sc.open(build(tmp_path / "parent"))
    plan = sc.plan(parent, params="60%")
    child = sc.prune(parent, plan, out=tmp_path / "child", score="first")
    again = sc.prune(parent, {"ffn": 512}, out=tmp_path / "again", score="first")
    assert child.anatomy.count() == plan.after.parameters
    assert again.anatomy.sizes["f"] == 512


def test_importing_is_cheap() -> None:
    """No PyTorch before the first call that needs it."""
    code = "import sys, secateur; assert callable(secateur.prune); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_whole_road(place: Path, tmp_path: Path) -> None:
    """The lines of the README, on a tiny model: measure, choose, cut and repair, prove, heal, measure, show."""
    text = place / "text.txt"
    parent = sc.open(place / "parent")
    told: list[str] = []
    stats = sc.calibrate(
        parent, text, observe=["activation", "taylor"], **TEXT, progress=lambda what, done, total: told.append(what)
    )
    assert stats.tokens == 256 and stats.get(0, "taylor", "h", "effect") is not None
    assert list(dict.fromkeys(told)) == ["calibrating", "gradients"]
    plan = sc.plan(parent, stats, params="60%")
    child = sc.prune(parent, plan, stats=stats, repair="least-squares", out=tmp_path / "child")
    assert child.anatomy.count() == plan.after.parameters <= 0.6 * parent.anatomy.count()
    record = json.loads((tmp_path / "child" / "secateur.json").read_text())
    assert record["settings"]["score"] == "contribution" and record["repair"]["text"] == [str(text)]
    assert {a["method"] for a in record["repair"]["attempts"]} == {"least squares"}
    assert json.loads((tmp_path / "child" / "importance.json").read_text())["criterion"] == "contribution"
    healed = sc.distill(child, text, teacher=parent, tokens="1k", length=32, batch=4, lr=3e-3, out=tmp_path / "healed")
    results = tmp_path / "results.json"
    found = sc.evaluate([child, healed], text, parent=parent, limit="2kB", window=32, out=results)
    assert [m["role"] for m in found["models"]] == ["parent", "child", "child"]
    assert found == json.loads(results.read_text())
    loss = [m["text"]["total"]["loss"] for m in found["models"]]
    assert loss[2] < loss[1]
    page = sc.report([parent, child, healed], text, limit="2kB", window=32, samples=0, out=tmp_path / "report.html")
    assert [m["name"] for m in page.models] == ["parent", "child", "healed"]
    assert sorted(page.healing) == ["healed"] and (tmp_path / "report.html").stat().st_size > 10_000
    sc.report(results, out=tmp_path / "again.html")
    left = {"again.html", "child", "healed", "report.html", "results.json"}
    assert {p.name for p in tmp_path.iterdir()} == left


def test_each_step_takes_paths_too(place: Path, tmp_path: Path) -> None:
    """Nothing needs to be opened; a repair by itself, and the proof of a cut."""
    parent, texts = place / "parent", [place / "text.txt"]
    sc.calibrate(parent, texts, **TEXT, out=tmp_path / "stats.safetensors")
    plan = sc.plan(parent, tmp_path / "stats.safetensors", ssm_heads=4)
    sc.prune(parent, plan, tmp_path / "child", stats=tmp_path / "stats.safetensors")
    assert sc.verify(parent, tmp_path / "child").holds
    repaired = sc.repair(tmp_path / "child", texts, parent=parent, methods="norm", **TEXT, batch=2, out=tmp_path / "b")
    attempts = json.loads((repaired.folder / "secateur.json").read_text())["repair"]["attempts"]
    assert {a["method"] for a in attempts} == {"norm factor"}


def test_a_repaired_cut_is_a_cut_and_a_repair(place: Path, tmp_path: Path) -> None:
    parent, text = sc.open(place / "parent"), place / "text.txt"
    sc.prune(parent, {"ffn": 24}, tmp_path / "cut")
    apart = sc.repair(tmp_path / "cut", text, parent=parent, **TEXT, out=tmp_path / "apart")
    sc.prune(parent, {"ffn": 32}, tmp_path / "once")
    methods = ["norm", "least-squares"]
    once = sc.prune(parent, {"ffn": 24}, tmp_path / "once", repair=methods, text=text, overwrite=True)
    assert apart.weights.tensors.keys() == once.weights.tensors.keys()
    assert all(apart.weights.read(name).equal(once.weights.read(name)) for name in apart.weights.tensors)
    assert {p.name for p in (tmp_path / "once").iterdir()} == {p.name for p in (tmp_path / "apart").iterdir()}


def test_the_command_line_does_the_same(place: Path, tmp_path: Path) -> None:
    parent, text = place / "parent", place / "text.txt"
    sc.calibrate(parent, text, **TEXT, seed=3, observe=["depth"], out=tmp_path / "a.safetensors")
    options = ("--samples", 8, "--length", 32, "--seed", 3, "--skip-layers", "one-shot")
    done("calibrate", parent, "--text", text, *options, "--out", tmp_path / "b.safetensors")
    a, b = (load_file(tmp_path / f"{name}.safetensors") for name in "ab")
    assert a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)
    assert any(key.startswith("depth/one-shot") for key in a)


def test_what_ends_early_says_why(place: Path, tmp_path: Path) -> None:
    parent, text = sc.open(place / "parent"), place / "text.txt"

    def refused(match: str, call: object, *args: object, **named: object) -> None:
        with pytest.raises(sc.SecateurError, match=match):
            call(*args, **named)  # type: ignore[operator]

    refused("observe: 'flap'", sc.calibrate, parent, text, observe=["flap"], **TEXT)
    refused("device 'abacus'", sc.calibrate, parent, text, device="abacus")
    refused("no such file", sc.calibrate, parent, place / "none.txt")
    refused("repair: 'lsq'", sc.prune, parent, {"ffn": 24}, tmp_path / "c", repair="lsq", text=text)
    refused("fitted on text", sc.prune, parent, {"ffn": 24}, tmp_path / "c", repair="norm")
    refused("masked twin", sc.prune, parent, {"ffn": 24}, tmp_path / "c", repair="norm", text=text, mask=True)
    refused("not empty", sc.prune, parent, {"ffn": 24}, place / "parent", repair="norm", text=text)
    refused("tokens '20MB'", sc.distill, parent, text, teacher=parent, tokens="20MB", out=tmp_path / "d")
    refused("name it", sc.report, [parent, parent], text, out=tmp_path / "page.txt")
    refused("folder does not exist", sc.evaluate, parent, text, out=tmp_path / "none" / "r.json")
    assert not list(tmp_path.iterdir())
