"""The whole road on tiny checkpoints."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.checkpoint import TensorStore
from secateur.errors import CheckpointError, SecateurError, UsageError
from secateur.evaluation.equality import load_strict
from secateur.train import TrainingError
from secateur.train.loop import Step

from . import tiny
from .conftest import Family


@pytest.mark.parametrize("name", ["llama", "hybrid"])
def test_heals_into_a_standard_checkpoint(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    family: Family = request.getfixturevalue(name)
    out = tiny.heal(family.child, family.parent, family.text, tmp_path / "out", tokens=16 * 128, lr=1e-2)
    losses = tiny.curve(out)
    assert len(losses) == 16 and losses[-1] < 0.7 * losses[0]
    assert (out / "config.json").read_bytes() == (family.child / "config.json").read_bytes()
    assert (out / "tokenizer.json").read_bytes() == (family.child / "tokenizer.json").read_bytes()
    before, after = TensorStore.open(family.child), TensorStore.open(out)
    assert {n: (i.dtype, i.shape) for n, i in before.tensors.items()} == {
        n: (i.dtype, i.shape) for n, i in after.tensors.items()
    }
    moved = [n for n in before.tensors if not torch.equal(before.read(n), after.read(n))]
    assert len(moved) > len(before.tensors) * 0.8
    load_strict(out)
    assert not (tmp_path / "out.work").exists()


def test_record_keeps_the_steps_before(llama: Family, tmp_path: Path) -> None:
    once = tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "once", tokens=256)
    twice = tiny.heal(once, llama.parent, llama.text, tmp_path / "twice", tokens=256, ce=0.25)
    record = json.loads((twice / "secateur.json").read_text())
    assert [record["step"], record["before"]["step"], record["before"]["before"]["step"]] == [
        "distill",
        "distill",
        "prune",
    ]
    assert record["settings"]["ce"] == 0.25 and record["result"]["steps"] == 2
    assert record["audit"]["summary"]["copied"] == 0
    assert set(record["teacher"]["sha256"]) == {"model.safetensors"} == set(record["student"]["sha256"])


def test_a_student_equal_to_its_teacher_stays(hybrid: Family, tmp_path: Path) -> None:
    settings = dict(tokens=2 * 128, lr=1e-9)
    online = tiny.heal(hybrid.parent, hybrid.parent, hybrid.text, tmp_path / "a", **settings)
    assert max(map(abs, tiny.curve(online))) < 1e-6
    cached = tiny.heal(hybrid.parent, hybrid.parent, hybrid.text, tmp_path / "b", top_k=tiny.VOCAB, **settings)
    assert max(map(abs, tiny.curve(cached))) < 1e-5  # log-probabilities in float16


def test_a_cached_teacher_gives_nearly_the_curve_of_one_at_hand(llama: Family, tmp_path: Path) -> None:
    online = tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "a", temperature=2.0)
    cache = tmp_path / "cache"
    args = dict(top_k=tiny.VOCAB, temperature=2.0, places={"cache": cache})
    cached = tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "b", **args)
    assert tiny.curve(cached) == pytest.approx(tiny.curve(online), rel=2e-3, abs=1e-5)
    stamps = {p: p.stat().st_mtime_ns for p in cache.iterdir()}
    again = tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "c", **args)
    assert tiny.curve(again) == tiny.curve(cached)
    assert stamps == {p: p.stat().st_mtime_ns for p in cache.iterdir()}
    with pytest.raises(UsageError, match=r"temperature 2.0 there, 1.0 here"):
        tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "d", **{**args, "temperature": 1.0})


def test_accumulated_gradients_give_the_same_curve(llama: Family, tmp_path: Path) -> None:
    whole = tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "a", micro_batch=4)
    parts = tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "b", micro_batch=3, chunk=1000)
    assert tiny.curve(parts) == pytest.approx(tiny.curve(whole), rel=1e-4)


def test_text_alone_needs_no_teacher(llama: Family, tmp_path: Path) -> None:
    out = tiny.heal(llama.child, None, llama.text, tmp_path / "out", ce=1.0)
    assert tiny.curve(out) == tiny.curve(out, "ce") and tiny.curve(out)[-1] < tiny.curve(out)[0]
    assert json.loads((out / "secateur.json").read_text())["teacher"] is None
    with pytest.raises(UsageError, match="no teacher"):
        tiny.heal(llama.child, None, llama.text, tmp_path / "other")


def test_corrected_teacher(llama: Family, tmp_path: Path) -> None:
    plain = tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "a")
    corrected = tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "b", correct_teacher=10 * 128)
    assert tiny.curve(corrected, "ce")[-1] < tiny.curve(plain, "ce")[-1] - 0.05
    assert json.loads((corrected / "secateur.json").read_text())["teacher"]["corrected_tokens"] == 1280


@pytest.mark.parametrize("hidden", ["cosine", "mse"])
def test_hidden_states_after_a_cut_of_depth_and_width(hidden: str, llama: Family, tmp_path: Path) -> None:
    child = tiny.child(tmp_path / "child", llama.parent, layers=[0, 3], hidden=16)
    out = tiny.heal(child, llama.parent, llama.text, tmp_path / "out", hidden=hidden, tokens=12 * 128, lr=1e-2)
    apart = tiny.curve(out, "hidden")
    assert apart[-1] < 0.9 * apart[0]
    assert tiny.curve(out)[0] == pytest.approx(2 * tiny.curve(out, "divergence")[0], rel=1e-4)
    load_strict(out)


def test_bf16_and_repeated_text(llama: Family, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("the cat sat on the mat " * 20)
    with pytest.raises(UsageError, match=r"has 461 tokens, 1,024 are needed"):
        tiny.heal(llama.child, llama.parent, short, tmp_path / "a")
    narrow = tiny.heal(llama.child, llama.parent, short, tmp_path / "b", repeat=True, bf16=True)
    wide = tiny.heal(llama.child, llama.parent, short, tmp_path / "c", repeat=True)
    assert tiny.curve(narrow) == pytest.approx(tiny.curve(wide), rel=0.1) and tiny.curve(narrow) != tiny.curve(wide)


def test_pairs_that_do_not_fit(llama: Family, hybrid: Family, tmp_path: Path) -> None:
    other = tiny.parent(tmp_path / "other", vocab=300)
    with pytest.raises(UsageError, match=r"258 tokens in its vocabulary.*300"):
        tiny.heal(llama.child, other, llama.text, tmp_path / "out")
    renamed = tiny.parent(tmp_path / "renamed")
    path = renamed / "tokenizer.json"
    path.write_text(path.read_text().replace('"a":', '"\\u0000":', 1))
    with pytest.raises(UsageError, match="differ in 1 tokens"):
        tiny.heal(llama.child, renamed, llama.text, tmp_path / "out")
    with pytest.raises(UsageError, match="not empty"):
        tiny.heal(llama.child, llama.parent, llama.text, llama.parent)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.work").exists()


class Break:
    """Stops or spoils a run at a step."""

    def __init__(self, at: int, action: Any) -> None:
        self.at, self.action = at, action

    def note(self, text: str) -> None:
        pass

    def progress(self, label: str, done: int, total: int) -> None:
        pass

    def step(self, step: Step, steps: int) -> None:
        if step.step == self.at:
            self.action()


def test_a_loss_that_is_not_finite_stops_with_the_last_good_state(
    llama: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from secateur.train import module

    def spoil() -> None:
        monkeypatch.setitem(module.DIVERGENCES, "kl", lambda s, t: s.sum(-1) * math.nan)

    with pytest.raises(TrainingError, match=r"step 6: the loss is nan.*last good state is .*step-000000004"):
        tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "out", save_every=2, reporter=Break(5, spoil))
    assert not (tmp_path / "out").exists()
    store = TensorStore.open(tmp_path / "out.work" / "step-000000004")
    assert all(bool(torch.isfinite(store.read(n)).all()) for n in store.tensors)


def test_a_run_of_another_kind_is_not_resumed(llama: Family, tmp_path: Path) -> None:
    def stop() -> None:
        raise SecateurError("stopped")

    with pytest.raises(SecateurError, match="stopped"):
        tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "out", reporter=Break(3, stop))
    with pytest.raises(UsageError, match=r"settings.lr was 0.003, now 0.001"):
        tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "out", lr=1e-3)
    anew = tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "out", lr=1e-3, places={"restart": True})
    assert len(tiny.curve(anew)) == 8


def test_damaged_states_and_caches_are_refused(llama: Family, tmp_path: Path) -> None:
    def stop() -> None:
        raise SecateurError("stopped")

    args = (llama.child, llama.parent, llama.text, tmp_path / "out")
    with pytest.raises(SecateurError, match="stopped"):
        tiny.heal(*args, save_every=2, reporter=Break(3, stop), top_k=8)
    shard = tmp_path / "out.work" / "cache" / "teacher-000000.safetensors"
    good = shard.read_bytes()
    shard.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="sha256"):
        tiny.heal(*args, save_every=2, top_k=8)
    shard.write_bytes(good)
    (tmp_path / "out.work" / "step-000000002" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        tiny.heal(*args, save_every=2, top_k=8)


def test_tensorboard(llama: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "tensorboard", None)
        absent.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
        with pytest.raises(UsageError, match="tensorboard"):
            tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "a", places={"tensorboard": True})
    pytest.importorskip("tensorboard", reason="NOT CHECKED: event files need the extra secateur[tensorboard]")
    out = tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "b", places={"tensorboard": True})
    assert any(p.stat().st_size > 500 for p in (out / "tensorboard").glob("events.out.tfevents.*"))
