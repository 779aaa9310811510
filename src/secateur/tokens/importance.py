"""How much every token matters, read at the moment a layer computes it: S (b, t), float32 or wider.

    scan        y (b, t, channels) that the layer's scan puts out, before its gate: UTRC's source. Read where
                transformers calls the scan (:mod:`secateur.kernels.context`), fast kernels included.
    attention   the mean weight a token gets, over heads and over up to QUERIES queries that may see it
    output      branch (b, t, d), what the block adds to the residual stream; exists in every layer

    clip  mean over channels of max(0, y)      mean  of y      l1  of |y|      l2  sqrt of mean y^2

``auto`` takes the scan where a layer has one, else attention, else the branch. Only S is kept of y.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import SecateurError, UsageError
from secateur.kernels.adapters import KERNELS, Kernel
from secateur.kernels.context import fast
from secateur.tokens.names import Measure, Source

QUERIES = 64
"""Queries whose attention is looked at, at even distances up to the last: the whole matrix would cost as much as the
layer itself."""

MEASURES: dict[Measure, Callable[[Tensor], Tensor]] = {
    "clip": lambda y: y.clamp(min=0).mean(-1),
    "mean": lambda y: y.mean(-1),
    "l1": lambda y: y.abs().mean(-1),
    "l2": lambda y: y.square().mean(-1).sqrt(),
}
#: Where the scans of transformers keep time: (b, channels, t) in Mamba-1, (b, t, ...) elsewhere.
_TIME_LAST = frozenset({"mamba_selective_scan"})


class Reading:
    """What one layer's forward showed while ``active``: S by source. ``queries``: so many first tokens are the prompt.
    ``expected``: whether the layer calls a scan or an attention function at all."""

    def __init__(self, measure: Measure) -> None:
        self.measure = MEASURES[measure]
        self.found: dict[str, Tensor] = {}
        self.active = self.expected = False
        self.queries: int | None = None

    def take(self, source: Source, branch: Callable[[], Tensor]) -> Tensor:
        """S (b, t) of the forward that has just ended, float32 or wider."""
        wanted = ("scan", "attention") if source == "auto" else (source,)
        if self.expected and not self.found:
            raise SecateurError(
                "a reduction layer's scan or attention was not seen",
                hint="enter reduce_tokens() inside fast(), not the other way round",
            )
        found = next((self.found[name] for name in wanted if name in self.found), None)
        self.found.clear()
        if found is None and source not in ("auto", "output"):
            raise UsageError(
                f"importance {source!r}: a reduction layer shows none", hint="importance='auto', or other locations"
            )
        return self.measure(branch()) if found is None else found


@contextmanager
def reading(block: nn.Module, measure: Measure) -> Iterator[Reading]:
    """Look at ``block``'s scan and attention inside the ``with``; the module is as before afterwards."""
    seen = Reading(measure)
    scans = [name for name in KERNELS if name != "causal_conv1d_fn"]
    watchers: dict[str, Kernel] = {name: _Scan(_only_input, seen, name) for name in scans}
    watchers["ALL_ATTENTION_FUNCTIONS"] = _Attention(_only_input, seen)
    with fast(block, watchers) as report:
        seen.expected = bool(report.taken)
        yield seen


def _only_input(*args: Any, **kwargs: Any) -> Any:
    """The stock function's business; watchers look at what it returns."""
    return NotImplemented


@dataclass(frozen=True)
class _Watcher(Kernel):
    """Stands where a stock function is called and hands on what it returns, unchanged."""

    seen: Reading
    name: str = ""

    def fits(self, stock: Any) -> bool:
        """A watcher reads no arguments."""
        return True


class _Scan(_Watcher):
    """y of a scan. Mamba-1 hands its gate to the scan: it is applied here, by the same operation, after y is read."""

    def replacing(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(stock)  # with its signature, so that fast() inside replaces it and take() can say so
        def watched(*args: Any, **kwargs: Any) -> Any:
            if not self.seen.active:
                return stock(*args, **kwargs)
            gate = kwargs.pop("z", None)
            out = stock(*args, **kwargs)
            y = out[0] if isinstance(out, tuple) else out
            time_first = y.mT if self.name in _TIME_LAST else y
            self.seen.found["scan"] = self.seen.measure(_wide(time_first.flatten(2)))
            if gate is None:
                return out
            gated = y * torch.nn.functional.silu(gate)
            return (gated, *out[1:]) if isinstance(out, tuple) else gated

        return watched


class _Attention(_Watcher):
    """Stands for transformers' table of attention functions."""

    def replacing(self, stock: Any) -> Any:
        return _Table(stock, self.seen)


class _Table:
    def __init__(self, stock: Any, seen: Reading) -> None:
        self._stock, self._seen = stock, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stock, name)

    def get_interface(self, *args: Any) -> Callable[..., Any]:
        """The attention function asked for, watched."""
        function = self._stock.get_interface(*args)

        def watched(
            module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, *rest: Any, **kwargs: Any
        ) -> Any:
            if self._seen.active:
                scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
                self._seen.found["attention"] = received(query, key, mask, scaling, self._seen.queries)
            return function(module, query, key, value, mask, *rest, **kwargs)

        return watched


def received(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, queries: int | None = None) -> Tensor:
    """Mean attention weight every token gets from the queries that may see it: (b, t).

    query (b, h, t, e), key (b, k, t, e) with k dividing h; mask None (causal) or (b or 1, 1, t, t), additive or bool.
    ``queries``: only the first so many tokens ask.
    """
    t = query.shape[2]
    asking = t if queries is None else min(queries, t)
    count = min(QUERIES, asking)
    rows = (torch.arange(1, count + 1, device=query.device) * asking) // count - 1
    grouped = query[:, :, rows].reshape(len(query), key.shape[1], -1, count, query.shape[-1])
    scores = _wide(torch.einsum("bkrse,bkte->bkrst", grouped, key)) * scaling
    visible = torch.arange(t, device=query.device) <= rows[:, None]
    if mask is not None and mask.ndim == 4:
        part = mask[:, 0, rows, :t][:, None, None]
        allowed = part if part.dtype == torch.bool else part > torch.finfo(part.dtype).min / 2
        visible = visible & allowed
    scores = scores.masked_fill(~visible, -torch.inf)
    weights = torch.nan_to_num(scores.softmax(-1))  # a query of padding may see nothing at all
    seen = visible.expand_as(weights).to(weights.dtype)
    return weights.sum((1, 2, 3)) / seen.sum((1, 2, 3)).clamp(min=1)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


__all__ = ["MEASURES", "QUERIES", "Reading", "reading", "received"]
