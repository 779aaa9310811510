from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from secateur.kernels import fast
from secateur.kernels.adapters import KERNELS

from .compare import relative
from .models import CONFIGS, build, float64, tokens

# the padding length makes every family cross chunk borders of the stock code and of ours
LENGTH = 75


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {}


def model_of(models: dict[str, Any], family: str) -> Any:
    if family not in models:
        models[family] = build(family)
    return models[family]


@torch.no_grad()
def logits(model: nn.Module, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    return model(ids, use_cache=False, **kwargs).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", CONFIGS)
def test_logits_equal_the_stock_path(models: dict[str, Any], family: str) -> None:
    model, ids = model_of(models, family), tokens(LENGTH)
    stock = logits(model, ids)
    with fast(model) as report:
        ours = logits(model, ids)
    assert report.taken and not report.left
    # the convolution alone is oneDNN's in both, to the last bit
    assert not torch.equal(ours, stock) or {k for t in report.taken for k in t.kernels} == {"causal_conv1d_fn"}
    assert relative(ours, stock) < 1e-4


@pytest.mark.parametrize("family", CONFIGS)
def test_logits_equal_in_fp64(models: dict[str, Any], family: str) -> None:
    model, ids = copy.deepcopy(model_of(models, family)).double(), tokens(LENGTH)
    with float64():
        stock = logits(model, ids)
        with fast(model):
            assert relative(logits(model, ids), stock) < 1e-10


def gradients(model: nn.Module, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(ids, labels=ids, use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", CONFIGS)
def test_training_gradients_equal_in_fp64(models: dict[str, Any], family: str) -> None:
    model, ids = copy.deepcopy(model_of(models, family)).double().train(), tokens(20)
    with float64():
        stock = gradients(model, ids)
        with fast(model):
            ours = gradients(model, ids)
    assert ours.keys() == stock.keys()
    errors = {name: relative(ours[name], g) for name, g in stock.items() if g.abs().max() > 1e-12}
    assert max(errors.values()) < 1e-8, max(errors, key=errors.__getitem__)


@pytest.mark.parametrize("family", CONFIGS)
def test_prefill_fills_the_cache_and_decoding_goes_on(models: dict[str, Any], family: str) -> None:
    model, ids = model_of(models, family), tokens(LENGTH)

    def run() -> tuple[Any, torch.Tensor]:
        with torch.no_grad():
            out = model(ids[:, :70], use_cache=True)
            cache, rows = out.past_key_values if "past_key_values" in out else out.cache_params, []
            snapshot = copy.deepcopy(cache)
            for i in range(70, LENGTH):
                rows.append(model(ids[:, i : i + 1], **{key(out): cache}, use_cache=True).logits)
        return snapshot, torch.cat(rows, 1)

    stock_cache, stock = run()
    with fast(model):
        cache, ours = run()
    assert relative(ours, stock) < 1e-4
    for a, b in zip(states(cache), states(stock_cache), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype and relative(a, b) < 1e-4


def key(out: Any) -> str:
    return "past_key_values" if "past_key_values" in out else "cache_params"


def states(cache: Any) -> list[torch.Tensor]:
    found = []
    for layer in cache.layers:
        for name in ("conv_states", "recurrent_states", "keys", "values"):
            value = getattr(layer, name, None)
            values = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
            found += [v for v in values if isinstance(v, torch.Tensor)]
    assert found
    return found


@pytest.mark.parametrize("family", ["mamba2", "nemotron_h", "mamba", "jamba", "qwen3_next"])
def test_padded_batches(models: dict[str, Any], family: str) -> None:
    model, ids = model_of(models, family), tokens(LENGTH)
    mask = torch.ones_like(ids)
    mask[0, :11] = 0
    stock = logits(model, ids, attention_mask=mask)
    with fast(model):
        ours = logits(model, ids, attention_mask=mask)
    assert relative(ours[mask.bool()], stock[mask.bool()]) < 1e-4


@pytest.mark.parametrize("family", ["mamba2", "nemotron_h", "falcon_h1", "mamba", "olmo_hybrid"])
def test_bf16_is_as_near_to_fp32_as_the_stock_path(models: dict[str, Any], family: str) -> None:
    ids = tokens(LENGTH)
    exact = logits(model_of(models, family), ids)
    model = copy.deepcopy(model_of(models, family)).bfloat16()
    stock = (logits(model, ids).float() - exact).norm()
    with fast(model):
        ours = (logits(model, ids).float() - exact).norm()
    assert ours < 1.3 * stock


def forwards(model: nn.Module) -> list[Any]:
    return [dict(vars(m)) for m in model.modules()]


def test_model_is_untouched_afterwards_also_by_an_exception(models: dict[str, Any]) -> None:
    model, ids = model_of(models, "nemotron_h"), tokens(20)
    before, stock = [set(v) for v in forwards(model)], logits(model, ids)
    with pytest.raises(RuntimeError, match="stop"), fast(model):
        raise RuntimeError("stop")
    assert [set(v) for v in forwards(model)] == before
    assert torch.equal(logits(model, ids), stock)


def test_only_this_model_is_fast(models: dict[str, Any]) -> None:
    model, ids = model_of(models, "mamba2"), tokens(20)
    other = copy.deepcopy(model)
    stock = logits(other, ids)
    with fast(model):
        assert torch.equal(logits(other, ids), stock)
        assert not torch.equal(logits(model, ids), stock)


def test_nesting_keeps_the_outer_block_fast(models: dict[str, Any]) -> None:
    model, ids = model_of(models, "mamba2"), tokens(LENGTH)
    stock = logits(model, ids)
    with fast(model) as outer:
        once = logits(model, ids)
        with fast(model) as inner:
            assert inner == outer
            assert torch.equal(logits(model, ids), once)
        assert torch.equal(logits(model, ids), once)
    assert torch.equal(logits(model, ids), stock) and not torch.equal(once, stock)


def test_a_copy_made_inside_runs_its_own_weights(models: dict[str, Any]) -> None:
    model, ids = model_of(models, "mamba2"), tokens(20)
    with fast(model):
        twin = copy.deepcopy(model)
        with torch.no_grad():
            for p in twin.parameters():
                p.zero_()
        assert logits(twin, ids).abs().max() == 0 < logits(model, ids).abs().max()


def test_reports_what_it_leaves_and_why() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.A_log = nn.Parameter(torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.A_log

    with fast(nn.Sequential(Odd(), nn.Linear(3, 3))) as report:
        assert not report.taken
        (left,) = report.left
    assert (left.name, left.module) == ("0", "Odd") and "no function that has a fast path" in left.reason
    assert "0 (Odd) left" in str(report)


def mamba2_chunk_scan(x: torch.Tensor) -> torch.Tensor:
    """Same name as a stock function, other parameters."""
    return x + 1


def test_a_function_of_the_same_name_with_other_parameters_is_left() -> None:
    class Other(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return mamba2_chunk_scan(x)

    model = Other()
    with fast(model) as report:
        assert model(torch.zeros(1)) == 1
    assert "signature of mamba2_chunk_scan" in report.left[0].reason


def test_packed_sequences_go_to_the_stock_function() -> None:
    for kernel in KERNELS.values():
        assert kernel.replacing(lambda *a, **k: "stock")(1, cu_seqlens=torch.ones(1)) == "stock"


def test_inputs_a_stand_in_refuses_go_to_the_stock_function() -> None:
    """Decays per channel too strong to factor at any chunk length."""
    q, beta = torch.ones(1, 20, 1, 4), torch.ones(1, 20, 1)
    chunked = KERNELS["chunk_kimi_delta_attention"].replacing(lambda *a, **k: "stock")
    assert chunked(q, q, q, -1000 * q, beta) == "stock" != chunked(q, q, q, -q, beta)
