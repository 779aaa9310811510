"""What a decoder layer is handed beside the stream, narrowed to the survivors.

transformers computes masks, positions and rotary angles once, for all tokens. They are told by their shape, T being
the tokens of the prompt: dimension 1 of anything (1 or b, T, ...) is time, both last dimensions of a (.., T, T) mask
are. So no family needs to be known: original embeddings (Zamba2), padding masks of recurrent layers and tables of
angles go the same way.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def narrowed(value: Any, alive: Tensor, tokens: int) -> Any:
    """``value`` with its time at the positions ``alive`` (b, n), for every tensor in it that has ``tokens`` of them."""
    if isinstance(value, Tensor):
        return _tensor(value, alive, tokens)
    if type(value) in (tuple, list):
        return type(value)(narrowed(v, alive, tokens) for v in value)
    if type(value) is dict:
        return {k: narrowed(v, alive, tokens) for k, v in value.items()}
    return value


def _tensor(x: Tensor, alive: Tensor, tokens: int) -> Tensor:
    rows, n = alive.shape
    if x.ndim == 4 and x.shape[2] == x.shape[3] == tokens and x.shape[0] in (1, rows):
        x = x.expand(rows, -1, -1, -1)
        queries = x.gather(2, alive[:, None, :, None].expand(-1, x.shape[1], -1, tokens))
        return queries.gather(3, alive[:, None, None].expand(-1, x.shape[1], n, -1))
    if x.ndim in (2, 3) and x.shape[1] == tokens and x.shape[0] in (1, rows):
        x = x.expand(rows, *x.shape[1:])
        return x.gather(1, alive.reshape(rows, n, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:]))
    return x


__all__ = ["narrowed"]
