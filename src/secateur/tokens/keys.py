"""Which tokens a cache holds after a reduced prompt, and the attention masks and positions that follow.

Behind a location a layer's keys are those of the survivors, at the positions they had in the prompt. Every layer may
hold other ones, while transformers makes one mask for all. So inside the wrapper the mask of every attention layer is
made here, whenever one is needed at all: a query at position i sees the keys at positions up to i that are no padding,
within the layer's window if it has one (a distance of positions, not a number of survivors). New tokens go on counting
where the prompt ended: token T of a text is at position T whatever was removed before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(slots=True)
class Held:
    """What a cache was fed. ``seen``: positions so far; ``fed``: survivors (b, n) that a layer read of the prompt, for
    layers behind a location; ``padding`` (b, t) where the prompt had any, True for padding."""

    prompt: int
    seen: int
    fed: dict[int, Tensor] = field(default_factory=dict)
    padding: Tensor | None = None

    def positions(self, layer: int, rows: int, new: int, device: torch.device) -> Tensor:
        """Positions (b, m) of all keys the layer was ever given, the ``new`` ones of this call included."""
        first = self.fed.get(layer)
        if first is None:
            first = torch.arange(self.prompt, device=device).expand(rows, -1)
        later = torch.arange(self.prompt, self.seen + new, device=device).expand(rows, -1)
        return torch.cat([first.to(device), later], 1)

    def hidden(self, positions: Tensor) -> Tensor | None:
        """Where ``positions`` (b, m) are padding; None where nothing is."""
        if self.padding is None:
            return None
        longer = torch.nn.functional.pad(self.padding, (0, int(positions.max()) + 1 - self.padding.shape[1]))
        return longer.gather(1, positions)


def mask(held: Held, layer: int, cached: Any, hidden_states: Tensor) -> Tensor | None:
    """Additive mask (b, 1, q, m) for ``q`` new tokens on a cache layer; None where every query may see every key."""
    rows, new = hidden_states.shape[:2]
    positions = held.positions(layer, rows, new, hidden_states.device)
    held_keys = 0 if cached.keys is None or not cached.keys.numel() else cached.keys.shape[-2]
    positions = positions[:, positions.shape[1] - held_keys - new :]
    asking = positions[:, -new:, None]
    allowed = positions[:, None] <= asking
    window = getattr(cached, "sliding_window", None)
    if window is not None:
        allowed = allowed & (asking - positions[:, None] < int(window))
    padding = held.hidden(positions)
    if padding is not None:
        allowed = allowed & ~padding[:, None]
    if bool(allowed.all()):
        return None
    least = torch.finfo(hidden_states.dtype).min
    return torch.zeros_like(allowed, dtype=hidden_states.dtype).masked_fill(~allowed, least)[:, None]


def is_fresh(cache: Any) -> bool:
    """Whether nothing has been read into a cache yet."""
    return not any(_holds(layer) for layer in cache.layers)


def _holds(layer: Any) -> bool:
    keys = getattr(layer, "keys", None)
    return (keys is not None and keys.numel() > 0) or any(getattr(layer, "has_previous_state", {}).values())


__all__ = ["Held", "is_fresh", "mask"]
