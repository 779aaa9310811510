from __future__ import annotations

import pytest
import torch

from secateur.kernels.conv import causal_conv
from secateur.kernels.reference import conv_reference

from .compare import assert_same


def tensors(t: int, width: int, bias: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = [(2, 5, t), (5, width)] + [(5,)] * bias
    return [torch.randn(*shape, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("t", [1, 3, 20])
@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_sum_over_taps(t: int, width: int, silu: bool, bias: bool) -> None:
    assert_same(
        lambda *a: causal_conv(*a, silu=silu),
        lambda *a: conv_reference(*a, silu=silu),
        tensors(t, width, bias),
        tolerance=1e-12,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.01)])
def test_narrow_types(dtype: torch.dtype, tolerance: float) -> None:
    args = tensors(30, 4, True)
    assert_same(lambda *a: causal_conv(*a, silu=True), lambda *a: conv_reference(*a, silu=True), args, dtype, tolerance)


def test_gradcheck() -> None:
    args = [v.requires_grad_() for v in tensors(6, 4, True)]
    assert torch.autograd.gradcheck(lambda *a: causal_conv(*a, silu=True), args)
