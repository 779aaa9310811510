"""Fast path against slow reference: values and gradients under one random linear functional of all outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def relative(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest value of ``b``."""
    return ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-30)).item()


def outputs_and_gradients(f: Callable[..., Any], inputs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """f's outputs and the gradients of every input, computed in ``dtype`` from the same numbers."""
    leaves = [v.to(dtype).requires_grad_() for v in inputs]
    out = f(*leaves)
    outs = [out] if isinstance(out, Tensor) else list(out)
    g = torch.Generator().manual_seed(5)
    loss = sum((o * torch.randn(o.shape, generator=g, dtype=torch.float64).to(o.dtype)).sum() for o in outs)
    return [*(o.detach() for o in outs), *torch.autograd.grad(loss, leaves)]


def assert_same(
    fast: Callable[..., Any],
    slow: Callable[..., Any],
    inputs: Sequence[Tensor],
    dtype: torch.dtype = torch.float64,
    tolerance: float = 1e-11,
) -> None:
    """``fast`` in ``dtype`` against ``slow`` in float64 on the same (rounded) inputs, with gradients and where none are
    asked for, which may be another path. Inputs must stay as they are."""
    rounded = [v.to(dtype) for v in inputs]
    got = outputs_and_gradients(fast, rounded, dtype)
    want = outputs_and_gradients(slow, rounded, torch.float64)
    errors = [relative(a, b) for a, b in zip(got, want, strict=True)]
    assert max(errors) < tolerance, errors
    given = [v.clone() for v in rounded]
    with torch.no_grad():
        out = fast(*given)
    outs = [out] if isinstance(out, Tensor) else list(out)
    errors = [relative(a, b) for a, b in zip(outs, want, strict=False)]
    assert max(errors) < tolerance, errors
    assert all(torch.equal(a, b) for a, b in zip(given, rounded, strict=True)), "an input was written to"
