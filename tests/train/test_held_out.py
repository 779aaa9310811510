"""Held-out loss along a run: what it says, when, and that it leaves the run alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from secateur.checkpoint import TensorStore
from secateur.data import load_tokenizer, pack, read_texts
from secateur.errors import UsageError
from secateur.evaluation.equality import load_strict
from secateur.train import HeldOut
from tests.checkpoint.tiny import same

from . import tiny
from .conftest import Family


def held_out_text(folder: Path) -> Path:
    path = folder / "held-out.txt"
    path.write_text("a mat and the cat sat on and on " * 40)
    return path


def plain_loss(folder: Path, text: Path) -> float:
    """Mean over the windows of the mean next-token loss of plain transformers."""
    windows = pack(load_tokenizer(folder), read_texts(text), length=32)
    with torch.no_grad():
        logits = load_strict(folder)(windows).logits
    return float(cross_entropy(logits[:, :-1].flatten(0, 1), windows[:, 1:].flatten()))


def test_it_is_the_loss_of_plain_transformers_and_changes_nothing(hybrid: Family, tmp_path: Path) -> None:
    text = held_out_text(tmp_path)
    plain = tiny.heal(hybrid.child, hybrid.parent, hybrid.text, tmp_path / "plain")
    held = HeldOut(texts=(text,), every=3)
    out = tiny.heal(hybrid.child, hybrid.parent, hybrid.text, tmp_path / "out", held_out=held)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "held_out" in line] == [0, 3, 6, 8]
    assert all(("loss" in line) == (line["step"] > 0) for line in lines)
    found = tiny.curve(out, "held_out")
    assert found[0] == pytest.approx(plain_loss(hybrid.child, text), rel=1e-4)
    assert found[-1] == pytest.approx(plain_loss(out, text), rel=1e-2)  # the result is in bfloat16
    assert all(0 < d < math.log(tiny.VOCAB) for d in tiny.curve(out, "held_out_divergence"))
    record = json.loads((out / "secateur.json").read_text())
    assert record["result"]["held_out"] == {"first": found[0], "last": found[-1]}
    assert record["result"]["steps"] == 8 and record["result"]["first"]["step"] == 1
    for key in ("loss", "gradient_norm"):
        assert tiny.curve(out, key) == tiny.curve(plain, key)
    a, b = TensorStore.open(plain), TensorStore.open(out)
    assert all(same(a.read(n), b.read(n)) for n in a.tensors)


def test_without_a_teacher_at_hand_there_is_no_divergence(llama: Family, tmp_path: Path) -> None:
    held = HeldOut(texts=(held_out_text(tmp_path),))
    cached = tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "a", top_k=8, held_out=held)
    alone = tiny.heal(llama.child, None, llama.text, tmp_path / "b", ce=1.0, held_out=held)
    for out in (cached, alone):
        assert len(tiny.curve(out, "held_out")) == 9 and not tiny.curve(out, "held_out_divergence")
    assert tiny.curve(cached, "held_out")[0] == tiny.curve(alone, "held_out")[0]


def test_what_cannot_be_measured(llama: Family, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without --eval-text"):
        HeldOut(texts=(), every=3)
    with pytest.raises(UsageError, match="eval_every is 0"):
        HeldOut(texts=("a.txt",), every=0)
    short = tmp_path / "short.txt"
    short.write_text("a mat")
    with pytest.raises(UsageError, match="has 6 tokens"):
        tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "out", held_out=HeldOut(texts=(short,)))
