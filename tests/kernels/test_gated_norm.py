from __future__ import annotations

import pytest
import torch
from transformers.models.mamba2.modeling_mamba2 import MambaRMSNormGated

from secateur.kernels import gated_norm
from secateur.kernels.gated_norm import in_pieces, is_gated_norm


def norm(dtype: torch.dtype) -> MambaRMSNormGated:
    torch.manual_seed(0)
    module = MambaRMSNormGated(24, 12).to(dtype)
    torch.nn.init.normal_(module.weight)
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 37, 24), (37, 24), (1, 1, 24)])
def test_pieces_change_no_bit(shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gated_norm, "PIECE", 24 * 5)
    module, calls = norm(dtype), []
    module.register_forward_hook(lambda *_: calls.append(1))
    hidden, gate = torch.randn(shape, dtype=dtype), torch.randn(*shape[:-1], 48, dtype=dtype)[..., 24:]
    stock = module.forward
    with torch.no_grad():
        want = stock(hidden, gate)
        got = in_pieces(lambda h, g: (calls.append(1), stock(h, g))[1])(hidden, gate)
    assert got.dtype == want.dtype and torch.equal(got, want)
    assert (len(calls) > 1) == (hidden.shape[-2] > 1)


def test_gradients_and_missing_gates_take_the_stock_way() -> None:
    module, hidden = norm(torch.float32), torch.randn(1, 50, 24, requires_grad=True)
    wrapped = in_pieces(module.forward)
    wrapped(hidden, hidden).sum().backward()
    assert hidden.grad is not None
    with torch.no_grad():
        assert torch.equal(wrapped(hidden), module(hidden))


def test_what_is_a_gated_norm() -> None:
    assert is_gated_norm(norm(torch.float32))
    assert not is_gated_norm(torch.nn.Linear(3, 3)) and not is_gated_norm(torch.nn.SiLU())
