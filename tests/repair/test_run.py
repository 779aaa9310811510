"""Whole repairs: a checkpoint in, a checkpoint out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from secateur.errors import UsageError
from secateur.model import open_model
from secateur.pruning.provenance import FILE
from secateur.pruning.recorded import recorded_cut
from secateur.pruning.repair import layer as layer_code
from secateur.pruning.repair import run as under_test
from secateur.pruning.repair.evidence import Evidence
from secateur.pruning.repair.layer import Repair
from secateur.pruning.repair.run import RepairSettings, repair
from tests.contract.harness import Parent, double_precision, load

from .models import cut, last_states, windows

Parents = dict[str, Parent]
SETTINGS = RepairSettings(batch=8)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {n: t for file in folder.glob("*.safetensors") for n, t in load_file(file).items()}


def direct_error(parent: Parent, layers: tuple[int, ...], rows: list[int], folder: Path, ids: torch.Tensor) -> float:
    """Relative error of the last layer's stream, by plain transformers."""
    with double_precision():
        n = parent.anatomy.n_layers
        want = last_states(load(parent.folder), n - 1, ids)[..., rows] if layers[-1] == n - 1 else None
        got = last_states(load(folder), len(layers) - 1, ids)
    assert want is not None
    return float((got - want).square().sum() / want.square().sum())


def check(log: list[Repair], out: Path, child: Path) -> dict[str, torch.Tensor]:
    """What is recorded changed, nothing else did; returns the changed tensors."""
    entry = json.loads((out / "secateur.json").read_text())
    before, after = tensors(child), tensors(out)
    assert before.keys() == after.keys()
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed == set(entry["repair"]["tensors"])
    assert all(after[n].dtype == before[n].dtype for n in before)
    assert (out / "config.json").read_bytes() == (child / "config.json").read_bytes()
    assert entry["step"] == "repair" and entry["history"] == ["prune"]
    said = [(r["layer"], r["tensor"], r["applied"]) for r in entry["repair"]["attempts"]]
    assert said == [(r.layer, r.tensor, r.applied) for r in log]
    assert entry["kept"] == json.loads((child / "secateur.json").read_text())["kept"]
    return {n: after[n] for n in changed}


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("llama", None),
        ("llama", [0, 3]),
        ("nemotron_h", None),
        ("nemotron_h", [0, 2, 4, 5]),
        ("mamba2", None),
        ("falcon_h1", None),
        ("gemma3_text", None),
        ("zamba2", None),
        ("mixtral", None),
        ("opt", None),
    ],
)
def test_a_repaired_checkpoint(name: str, layers: list[int] | None, parents: Parents, tmp_path: Path) -> None:
    """Strict load; the recorded error is that of the written checkpoint, on text that fitted nothing."""
    if layers:
        layers = [*layers[:-1], parents[name].anatomy.n_layers - 1]
    parent, child = cut(parents[name], tmp_path / "child", layers=layers)
    ids = windows(64, 24)
    repaired, log = repair(child, parent, ids, tmp_path / "out", SETTINGS)
    changed = check(log, tmp_path / "out", tmp_path / "child")
    assert changed and log
    found = recorded_cut(parent, child)
    assert recorded_cut(parent, repaired).layers == found.layers
    judging = torch.cat([ids[i : i + 8] for i in range(0, 64, 8)][3::4])
    rows = found.keep.get("d", "", {}).tolist()
    after = direct_error(parents[name], found.layers, rows, tmp_path / "out", judging)
    last = [r for r in log if r.layer == len(found.layers) - 1]
    if last:
        told = last[-1].after if last[-1].applied else last[-1].before
        assert after == pytest.approx(told, rel=1e-3)
    assert after < direct_error(parents[name], found.layers, rows, tmp_path / "child", judging)


def test_vocabulary_trimmed(parents: Parents, tmp_path: Path) -> None:
    """The parent reads its ids and the child its own; windows with lost tokens are left out."""
    combined = {**parents["nemotron_h"].row.combined, "vocab": 60}
    parent, child = cut(parents["nemotron_h"], tmp_path / "child", combined)
    kept = recorded_cut(parent, child).keep.get("v", "", {})
    ids = torch.from_numpy(kept)[windows(40, 16, low=0, high=60)]
    lost = next(i for i in range(97) if i not in set(kept.tolist()))
    bad = ids[:3].clone()
    bad[:, 5] = lost
    _, log = repair(child, parent, torch.cat([bad, ids]), tmp_path / "out", SETTINGS)
    check(log, tmp_path / "out", tmp_path / "child")
    _, again = repair(child, parent, ids, tmp_path / "again", SETTINGS)
    assert log == again
    with pytest.raises(UsageError, match="0 windows of text are usable"):
        repair(child, parent, bad, tmp_path / "x", SETTINGS)


def test_half_precision_is_judged_as_it_is_stored(
    parents: Parents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 on disk: what was judged is what was written."""
    write = under_test._write
    source = shutil.copytree(parents["mamba2"].folder, tmp_path / "parent")
    file = source / "model.safetensors"
    save_file({n: t.bfloat16() for n, t in load_file(file).items()}, file, {"format": "pt"})
    half = Parent("mamba2", source, parents["mamba2"].anatomy, {})
    parent, child = cut(half, tmp_path / "child")
    ids, held = windows(64, 24), {}
    monkeypatch.setattr(under_test, "_write", lambda c, work, *a: held.update(work.changed) or write(c, work, *a))
    _, log = repair(child, parent, ids, tmp_path / "out", SETTINGS)
    changed = check(log, tmp_path / "out", tmp_path / "child")
    assert changed and all(t.dtype == torch.bfloat16 for t in changed.values())
    assert all(torch.equal(held[n], t.float()) for n, t in changed.items()), "the judge saw other weights"
    found = recorded_cut(parent, child)
    judging = torch.cat([ids[i : i + 8] for i in range(0, 64, 8)][3::4])
    after = direct_error(half, found.layers, found.keep.get("d", "", {}).tolist(), tmp_path / "out", judging)
    assert after == pytest.approx(min(log[-1].after, log[-1].before), rel=1e-4)


def test_nothing_that_helps_leaves_every_byte(
    parents: Parents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, child = cut(parents["llama"], tmp_path / "child")
    monkeypatch.setattr(Evidence, "solve", lambda tokens, weight, **kw: (weight.double() * 20, None))
    monkeypatch.setattr(layer_code, "fitted_scale", lambda pairs: 10.0)
    _, log = repair(child, parent, windows(16), tmp_path / "out", SETTINGS)
    assert check(log, tmp_path / "out", tmp_path / "child") == {}
    name = "model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "child" / name).read_bytes()


def test_refusals_come_before_the_work(parents: Parents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = cut(parents["mamba2"], tmp_path / "child")
    other, _ = cut(parents["llama"], tmp_path / "other")
    monkeypatch.setattr(under_test, "walk_pair", lambda *a, **k: pytest.fail("the walk began"))
    with pytest.raises(UsageError, match="exists and is not empty"):
        repair(child, parent, windows(16), tmp_path / "child", SETTINGS)
    with pytest.raises(UsageError, match="was not cut from"):
        repair(child, other, windows(16), tmp_path / "out", SETTINGS)
    with pytest.raises(UsageError, match="15 windows of text are usable, expected at least 16"):
        repair(child, parent, windows(15), tmp_path / "out", SETTINGS)
    with pytest.raises(UsageError, match=FILE):
        repair(parent, parent, windows(16), tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_repair_leaves_nothing(
    parents: Parents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, child = cut(parents["mamba2"], tmp_path / "child")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repair(child, parent, windows(16), tmp_path / "out", SETTINGS, progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["child"]


def test_repairing_again_goes_on_from_the_repaired(parents: Parents, tmp_path: Path) -> None:
    parent, child = cut(parents["mamba2"], tmp_path / "child")
    once, _ = repair(child, parent, windows(32, 24), tmp_path / "once", SETTINGS)
    _, log = repair(once, parent, windows(32, 24), tmp_path / "twice", SETTINGS)
    assert json.loads((tmp_path / "twice" / "secateur.json").read_text())["history"] == ["prune", "repair"]
    assert all(r.after < 1e6 for r in log)
    open_model(tmp_path / "twice")
