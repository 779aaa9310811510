"""Prefill and token-by-token decoding through the model's own cache."""

from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def prefill(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """(next tokens (batch, 1) by argmax, the model's output with its cache); ids (batch, time)."""
    out = model(ids, use_cache=True, logits_to_keep=1)
    return out.logits[:, -1:].argmax(-1), out


@torch.no_grad()
def step(model: Any, token: torch.Tensor, out: Any) -> tuple[torch.Tensor, Any]:
    """One token further."""
    name = "cache_params" if getattr(out, "cache_params", None) is not None else "past_key_values"
    out = model(token, use_cache=True, **{name: getattr(out, name)})
    return out.logits[:, -1:].argmax(-1), out


def greedy(model: Any, ids: torch.Tensor, tokens: int, stop: frozenset[int] = frozenset()) -> list[int]:
    """Up to ``tokens`` new ids after one prompt (1, time); ends before an id of ``stop``."""
    found: list[int] = []
    token, out = prefill(model, ids.to(model.device))
    while int(token) not in stop:
        found.append(int(token))
        if len(found) == tokens:
            break
        token, out = step(model, token, out)
    return found


__all__ = ["greedy", "prefill", "step"]
