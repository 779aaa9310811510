"""Against a loop that asks the model for one token at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.evaluation import stream
from secateur.evaluation.equality import load_strict
from secateur.evaluation.perplexity import Perplexity, perplexity
from secateur.evaluation.windows import Source, make_windows

from .models import TEXT, hybrid, tokenizer

SOURCES = [Source("a", (TEXT[:170], "🌹 naïve")), Source("b", (TEXT[200:330],))]


@torch.no_grad()
def plain_loop(model: Any, tok: Any, text: str, length: int, stride: int, bos: bool) -> tuple[float, int]:
    """(nats, tokens): for each target its own forward over exactly the tokens it may see."""
    ids = tok(text, add_special_tokens=False)["input_ids"]
    nats, count = 0.0, 0
    first = 0 if bos else 1
    for t in range(first, len(ids)):
        number = t - first
        # the first window scores ``length`` targets, each later one ``stride``
        window_start = 0 if number < length else length + (number - length) // stride * stride
        reach = length if number < length else stride
        inputs_end = first + window_start + reach
        start = max(0, inputs_end - length + (0 if bos else -1))
        seen = ([0] if bos else []) + ids[start:t]
        logits = model(torch.tensor([seen]), use_cache=False).logits[0, -1].double()
        nats -= float(logits.log_softmax(-1)[ids[t]])
        count += 1
    return nats, count


@pytest.mark.parametrize(("length", "stride", "bos"), [(12, 12, False), (12, 12, True), (12, 5, False), (12, 5, True)])
def test_equals_the_plain_loop(
    tmp_path: Path, length: int, stride: int, bos: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SLICE_ENTRIES", 3 * 320 * 4)
    tok = tokenizer(bos=bos)
    model = load_strict(hybrid(tmp_path / "m", bos=bos))
    whole, each = perplexity(model, make_windows(tok, SOURCES, length, stride), batch=3)
    for source, got in zip(SOURCES, each, strict=True):
        loops = [plain_loop(model, tok, d, length, stride, bos) for d in source.documents]
        assert got.tokens == sum(n for _, n in loops)
        assert got.nats == pytest.approx(sum(x for x, _ in loops), rel=1e-5)
    assert (whole.tokens, whole.bytes) == (sum(e.tokens for e in each), sum(e.bytes for e in each))
    assert whole.nats == pytest.approx(sum(e.nats for e in each))


def test_bits_per_byte_do_not_depend_on_how_text_is_cut() -> None:
    """Uniform over 256 bytes costs 8 bits a byte; over 65,536 pairs of bytes it costs the same in half the tokens."""
    text = "中文🌹é" * 10
    n = len(text.encode("utf-8"))
    bytewise = Perplexity(n * math.log(256), n, n)
    pairwise = Perplexity(n / 2 * math.log(65536), n // 2, n)
    assert bytewise.bits_per_byte == pytest.approx(8)
    assert pairwise.bits_per_byte == pytest.approx(8)
    assert pairwise.loss == pytest.approx(2 * bytewise.loss)
    assert bytewise.perplexity == pytest.approx(256)


def test_a_uniform_model_costs_the_logarithm_of_its_vocabulary(parent_folder: Path) -> None:
    model = load_strict(parent_folder)
    model.lm_head.weight.data.zero_()
    whole, _ = perplexity(model, make_windows(tokenizer(), SOURCES, 16))
    assert whole.loss == pytest.approx(math.log(320), rel=1e-6)


def test_a_broken_model_has_no_number(parent_folder: Path) -> None:
    model = load_strict(parent_folder)
    model.lm_head.weight.data.fill_(math.nan)
    whole, _ = perplexity(model, make_windows(tokenizer(), SOURCES, 16))
    assert whole.to_json()["loss"] is None
