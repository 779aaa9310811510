"""From a budget to a shape without statistics: every shape on a grid of sizes kernels like, closest to a profile.

The profile says how much of a budget each axis pays: feed-forward width first, then the residual stream, then SSM
heads, as in the published shapes of Nemotron-H-4B and Nemotron-Nano-9B (arXiv 2504.11409, 2508.14444); attention and
the state are left alone unless nothing else fits. Candidates are counted in closed form, all at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.anatomy.axes import PublicAxis
from secateur.anatomy.sizes import expressible, tied_axes
from secateur.errors import BudgetError
from secateur.model import Model
from secateur.pruning.budget import group_bytes
from secateur.pruning.shape import refusal

#: Public axis -> exponent: at scale s the axis aims at size * s**exponent.
PROFILE = {
    "ffn": 1.0,
    "expert_ffn": 1.0,
    "shared_ffn": 1.0,
    "hidden": 0.5,
    "ssm_channels": 0.5,
    "conv_channels": 0.5,
    "ssm_heads": 0.25,
    "delta_v_per_key": 0.25,
    "lru_blocks": 0.25,
}
#: Axes drawn in only when the profile alone cannot reach the budget.
RESERVE = (
    "experts",
    "kv_heads",
    "q_per_kv",
    "ssm_head_dim",
    "ssm_state",
    "delta_value_dim",
    "delta_key_heads",
    "mla_heads",
)
MAX_CANDIDATES = 400_000
FLOOR = 0.2


@dataclass(frozen=True, slots=True)
class _Dial:
    axis: PublicAxis
    symbols: tuple[str, ...]
    values: np.ndarray[Any, Any]
    now: int
    exponent: float


def search(
    model: Model,
    sizes: Mapping[str, int],
    fixed: set[str],
    layers: frozenset[int],
    params: int | None,
    nbytes: int | None,
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The shape under the budget closest to the profile, and notes on how it was found.

    ``fixed``: symbols whose size is given. Raises BudgetError with the smallest shape found when nothing fits.
    """
    smallest = math.inf, ""
    for names in (tuple(PROFILE), (*PROFILE, *RESERVE)):
        dials = _dials(model, sizes, fixed, names)
        if _used(model, sizes, layers, params, nbytes)[0] <= 1:
            return dict(sizes), ("the budget is not exceeded as it is",)
        if not dials:
            continue
        found, least = _best(model, sizes, dials, layers, params, nbytes)
        if found is not None:
            reserve = [d.axis.name for d in dials if d.axis.name in RESERVE]
            note = f"the usual axes alone do not fit the budget; also used {', '.join(reserve)}" if reserve else ""
            return found, (note,) if note else ()
        smallest = min(smallest, least)
    raise BudgetError(
        "no shape fits the budget"
        + (f"; the closest takes {smallest[0]:.1%} of it: {smallest[1]}" if smallest[1] else ""),
        hint="raise the budget, or drop layers too (--drop-layers)",
    )


def _dials(model: Model, sizes: Mapping[str, int], fixed: set[str], names: tuple[str, ...]) -> list[_Dial]:
    anatomy = model.anatomy
    out = []
    for axis in anatomy.public_axes():
        if axis.name not in names or axis.symbol in fixed or refusal(anatomy, axis):
            continue
        outer = math.prod(sizes[s] for s in axis.symbols[:-1])
        now = sizes[axis.symbol]
        step = kernel_step(axis, now * outer, outer)
        values = np.unique(np.r_[np.arange(step, now + 1, step), now])
        values = values[values >= max(1, math.ceil(now * FLOOR))]
        if len(values) > 1:
            exponent = PROFILE.get(axis.name, 0.0)
            out.append(_Dial(axis, tied_axes(anatomy.family, axis.symbol), values, now, exponent))
    while math.prod(len(d.values) for d in out) > MAX_CANDIDATES:
        longest = max(range(len(out)), key=lambda i: len(out[i].values))
        d = out[longest]
        thinned = np.unique(np.r_[d.values[::-1][::2]])
        out[longest] = _Dial(d.axis, d.symbols, thinned, d.now, d.exponent)
    return out


def kernel_step(axis: PublicAxis, size: int, outer: int) -> int:
    """The kernel-friendly multiple, halved until the axis still has about eight sizes to choose from."""
    multiple = axis.multiple
    while multiple > 1 and size / multiple < 8:
        multiple //= 2
    return max(1, multiple // outer)


def _used(
    model: Model, sizes: Mapping[str, Any], layers: frozenset[int], params: int | None, nbytes: int | None
) -> tuple[Any, Any]:
    """(largest, smallest) share of the budgets that ``sizes`` take; above 1 is over."""
    shares = []
    if params is not None:
        shares.append(model.anatomy.count(sizes, layers) / params)
    if nbytes is not None:
        shares.append(group_bytes(model, sizes, layers) / nbytes)
    return (shares[0] if len(shares) == 1 else np.maximum(*shares)), shares[0]


def _best(
    model: Model,
    sizes: Mapping[str, int],
    dials: list[_Dial],
    layers: frozenset[int],
    params: int | None,
    nbytes: int | None,
) -> tuple[dict[str, int] | None, tuple[float, str]]:
    shape = tuple(len(d.values) for d in dials)
    trial: dict[str, Any] = dict(sizes)
    for i, d in enumerate(dials):
        column = d.values.reshape([-1 if j == i else 1 for j in range(len(dials))])
        trial |= dict.fromkeys(d.symbols, column)
    used = np.broadcast_to(np.asarray(_used(model, trial, layers, params, nbytes)[0], dtype=np.float64), shape)
    ok = np.broadcast_to(expressible(model.anatomy.family, trial, model.anatomy.config, model.anatomy.live), shape)
    scale = _scale(model, sizes, dials, layers, params, nbytes)
    off: Any = 0.0
    for d in dials:
        column = trial[d.symbols[0]]
        off = off + (np.log(column / d.now) - d.exponent * math.log(scale)) ** 2
    # leaving budget unused is a loss too: 1% unused weighs as much as 2% off the profile
    total = off + 4 * np.log(np.minimum(used, 1.0)) ** 2
    total = np.where(ok & (used <= 1.0), total, np.inf)
    at = np.unravel_index(int(np.argmin(total)), shape)
    least = np.unravel_index(int(np.argmin(np.where(ok, used, np.inf))), shape)
    closest = (float(used[least]), _text(model, _pick(sizes, dials, least))) if ok.any() else (math.inf, "")
    return (_pick(sizes, dials, at) if np.isfinite(total[at]) else None), closest


def _pick(sizes: Mapping[str, int], dials: list[_Dial], at: tuple[Any, ...]) -> dict[str, int]:
    out = dict(sizes)
    for d, i in zip(dials, at, strict=True):
        out |= {s: int(d.values[i]) for s in d.symbols}
    return out


def _text(model: Model, sizes: Mapping[str, int]) -> str:
    now, new = model.anatomy.public_sizes(model.anatomy.sizes), model.anatomy.public_sizes(sizes)
    return ", ".join(f"{n}={new[n]}" for n in new if new[n] != now[n])


def _scale(
    model: Model,
    sizes: Mapping[str, int],
    dials: list[_Dial],
    layers: frozenset[int],
    params: int | None,
    nbytes: int | None,
) -> float:
    """The s at which the profile's (fractional) shape meets the budget, by bisection."""
    low, high = 1e-3, 1.0
    for _ in range(40):
        mid = math.sqrt(low * high)
        trial: dict[str, Any] = dict(sizes)
        for d in dials:
            trial |= dict.fromkeys(d.symbols, d.now * mid**d.exponent)
        if float(_used(model, trial, layers, params, nbytes)[0]) > 1:
            high = mid
        else:
            low = mid
    return low
