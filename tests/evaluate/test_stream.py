"""Logits in slices are the model's own logits, whatever its family does to them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from secateur.evaluation import stream as module
from secateur.evaluation.stream import Reader, logit_slices, stream
from secateur.evaluation.windows import IGNORE, Window
from tests.contract.rows import ROWS


def build(model_type: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{"vocab_size": 97, **fields})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("name", sorted(name for name in ROWS if "@" not in name))
def test_slices_are_the_models_logits(name: str) -> None:
    row = ROWS[name]
    model = build(name, **row.config)
    ids = torch.randint(3, 97, (2, 10), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = model(ids, use_cache=False).logits
        parts = list(logit_slices(model, ids, start=4, width=3))
    assert torch.cat(parts, 1).shape == want[:, 4:].shape
    torch.testing.assert_close(torch.cat(parts, 1), want[:, 4:], rtol=1e-4, atol=1e-5)
    assert "forward" not in vars(model.base_model)


def test_the_head_runs_on_slices_only() -> None:
    model = build("llama", hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    widths: list[int] = []
    model.lm_head.register_forward_hook(lambda m, a, out: widths.append(out.shape[1]))
    with torch.no_grad():
        list(logit_slices(model, torch.zeros(2, 10, dtype=torch.long), 0, 4))
    assert widths == [4, 4, 2]


def test_readers_with_different_vocabularies_stay_in_step(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    large, small = build("llama", **fields), build("llama", vocab_size=31, **fields)
    monkeypatch.setattr(module, "SLICE_ENTRIES", 97 * 3)
    window = Window(torch.arange(10), torch.arange(1, 11), 0)
    parts = list(stream([Reader(large, torch.arange(31)), Reader(small)], [window]))
    assert [[x.shape[1:] for x in p.logits] for p in parts] == [[(n, 31), (n, 31)] for n in (3, 3, 3, 1)]


def test_padding_and_context_are_not_scored() -> None:
    model = build("llama", hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    windows = [
        Window(torch.tensor([5, 6, 7, 8]), torch.tensor([IGNORE, IGNORE, 8, 9]), 0),
        Window(torch.tensor([5, 6, 7]), torch.tensor([IGNORE, IGNORE, 8]), 1),
    ]
    parts = list(stream([Reader(model)], windows, batch=2))
    assert [p.targets.tolist() for p in parts] == [[[8, 9], [8, IGNORE]]]
    alone = model(torch.tensor([[5, 6, 7]]), use_cache=False).logits[0, 2]
    torch.testing.assert_close(parts[0].logits[0][1, 0], alone.detach(), rtol=1e-4, atol=1e-5)
