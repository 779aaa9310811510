"""From what a person asks ("hidden=3072, ssm_heads=112") to axis sizes - or a refusal that says what could be asked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.axes import PUBLIC, PublicAxis
from secateur.anatomy.sizes import expressible, tied_axes, violations
from secateur.errors import InexpressibleError, UsageError


def public_axis(anatomy: Anatomy, name: str) -> PublicAxis:
    """The axis called ``name``, if this model has it."""
    available = [a.name for a in anatomy.public_axes()]
    if name not in PUBLIC:
        raise UsageError(f"there is no axis called {name!r}; this model has: {', '.join(available)}, layers")
    if name not in available:
        raise UsageError(
            f"this {anatomy.family.model_type} model has no axis {name!r}; it has: {', '.join(available)}, layers"
        )
    return PUBLIC[name]


def refusal(anatomy: Anatomy, axis: PublicAxis) -> str | None:
    """Why the config cannot resize ``axis`` at all, or None when it can."""
    for symbol in (axis.symbol, *tied_axes(anatomy.family, axis.symbol)):
        fixed = anatomy.fixed(symbol)
        if fixed is not None and symbol in anatomy.live:
            return fixed.why
    return None


def resolve(anatomy: Anatomy, wanted: Mapping[str, int]) -> dict[str, int]:
    """Axis sizes for public sizes; everything not named keeps its size.

    Raises UsageError for names and values that make no sense, InexpressibleError (with the nearest shapes that can be
    said) for shapes the family's config cannot hold.
    """
    sizes = dict(anatomy.sizes)
    # groups before heads: ssm_heads counts all heads, so its size inside a group depends on how many groups stay
    for name in sorted(wanted, key=lambda n: len(PUBLIC[n].symbols) if n in PUBLIC else 0):
        axis = public_axis(anatomy, name)
        _check_value(anatomy, axis, wanted[name])
        outer = math.prod(sizes[s] for s in axis.symbols[:-1])
        if wanted[name] % outer:
            raise _uneven(anatomy, wanted, name, outer)
        for symbol in tied_axes(anatomy.family, axis.symbol):
            sizes[symbol] = wanted[name] // outer
    broken = violations(anatomy.family, sizes, anatomy.config, anatomy.live)
    if broken:
        found = nearest(anatomy, sizes, [a for v in broken for a in v.axes], wanted)
        asked = ", ".join(f"{k}={v}" for k, v in wanted.items())
        raise InexpressibleError(
            f"a {anatomy.family.model_type} config cannot express {asked}: {broken[0].why}",
            hint="nearest shapes it can: " + "; ".join(found) if found else "no shape nearby fits either",
            nearest=tuple(found),
        )
    return sizes


def _uneven(anatomy: Anatomy, wanted: Mapping[str, int], name: str, outer: int) -> InexpressibleError:
    """The refusal of a size that does not divide into groups, with the nearest ones that do and fit otherwise too."""
    low = max(wanted[name] // outer * outer, outer)
    near: dict[str, None] = {}
    for value in sorted({low, low + outer}):
        shape = {**wanted, name: value}
        try:
            resolve(anatomy, shape)
            near[",".join(f"{k}={v}" for k, v in shape.items())] = None
        except InexpressibleError as e:
            near |= dict.fromkeys(e.nearest)
    return InexpressibleError(
        f"{name}={wanted[name]} does not divide into {outer} groups of equal size",
        hint="nearest shapes the config can say: " + "; ".join(near) if near else "no shape nearby fits either",
        nearest=tuple(near)[:3],
    )


def _check_value(anatomy: Anatomy, axis: PublicAxis, value: int) -> None:
    now = anatomy.public_size(axis)
    why = refusal(anatomy, axis)
    if value == now:
        return
    if value > now:
        raise UsageError(f"{axis.name}={value} is more than the {now} this model has; pruning only removes")
    least = 0 if axis.symbol in anatomy.family.may_be_zero else 1
    if value < least:
        raise UsageError(f"{axis.name}={value}: at least {least} must stay")
    if why is not None:
        raise InexpressibleError(f"{axis.name} stays {now} in {anatomy.family.model_type}: {why}")


def nearest(
    anatomy: Anatomy, sizes: Mapping[str, int], axes: Sequence[str], wanted: Mapping[str, int], limit: int = 3
) -> list[str]:
    """Shapes close to ``sizes`` that the config can say, varying one or two of ``axes``; closest first."""
    free = [a for a in dict.fromkeys(axes) if a in anatomy.live and anatomy.fixed(a) is None and anatomy.sizes[a] > 1]
    found: dict[str, float] = {}
    for count in (1, 2):
        for chosen in itertools.combinations(free, count):
            for distance, shape in _vary(anatomy, sizes, chosen):
                text = _describe(anatomy, shape, wanted)
                found[text] = min(distance, found.get(text, math.inf))
        if len(found) >= limit:
            break
    return sorted(found, key=lambda t: found[t])[:limit]


def _vary(anatomy: Anatomy, sizes: Mapping[str, int], axes: tuple[str, ...]) -> list[tuple[float, dict[str, int]]]:
    groups = [tied_axes(anatomy.family, a) for a in axes]
    if len(axes) == 2 and set(groups[0]) & set(groups[1]):
        return []
    grids = np.meshgrid(*(np.arange(1, anatomy.sizes[a] + 1) for a in axes), indexing="ij")
    trial: dict[str, Any] = dict(sizes)
    for group, grid in zip(groups, grids, strict=True):
        for symbol in group:
            trial[symbol] = grid
    ok = np.broadcast_to(expressible(anatomy.family, trial, anatomy.config, anatomy.live), grids[0].shape)
    off: Any = sum(np.abs(np.log(grid / sizes[a])) for a, grid in zip(axes, grids, strict=True))
    order = np.argsort(np.where(ok, off, np.inf), axis=None)[:3]
    out = []
    for flat in order:
        if ok.reshape(-1)[flat]:
            shape = dict(sizes)
            for group, grid in zip(groups, grids, strict=True):
                shape |= {s: int(grid.reshape(-1)[flat]) for s in group}
            out.append((float(np.reshape(off, -1)[flat]), shape))
    return out


def _describe(anatomy: Anatomy, shape: Mapping[str, int], wanted: Mapping[str, int]) -> str:
    now, new = anatomy.public_sizes(anatomy.sizes), anatomy.public_sizes(shape)
    names = [n for n in new if n in wanted or new[n] != now[n]]
    return ",".join(f"{n}={new[n]}" for n in names)
