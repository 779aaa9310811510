"""The axes a search may turn, and the sizes each may take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.axes import PublicAxis
from secateur.anatomy.sizes import tied_axes
from secateur.errors import InexpressibleError, UsageError
from secateur.pruning.grid import FLOOR, kernel_step
from secateur.pruning.shape import public_axis, refusal

#: Axes whose units no calibration ranks: they keep their size unless they are named.
_OUTSIDE = ("vocab", "embed_dim")


@dataclass(frozen=True, slots=True)
class Dial:
    """``values``: sizes of the axis' own symbol (heads in a group), rising; ``symbols`` change together with it."""

    axis: PublicAxis
    symbols: tuple[str, ...]
    values: NDArray[np.int64]


def dials(anatomy: Anatomy, axes: Mapping[str, Sequence[int] | None] | Sequence[str] | None = None) -> list[Dial]:
    """Dials of the named axes, or of all that the config can resize.

    ``axes``: public names, with public sizes where not the sizes that kernels like are meant. Axes that one config
    field sizes are one dial. Raises UsageError or InexpressibleError for names and sizes that cannot be.
    """
    wanted = axes if isinstance(axes, Mapping) else dict.fromkeys(axes) if axes is not None else None
    names = list(wanted) if wanted is not None else [a.name for a in anatomy.public_axes() if a.name not in _OUTSIDE]
    out: list[Dial] = []
    for name in names:
        axis = public_axis(anatomy, name)
        symbols, why = tied_axes(anatomy.family, axis.symbol), refusal(anatomy, axis)
        if why is not None and wanted is not None:
            raise InexpressibleError(f"{name} cannot change in {anatomy.family.model_type}: {why}")
        if why is not None or any(set(symbols) & set(d.symbols) for d in out):
            continue
        given = wanted[name] if wanted is not None else None
        values = _friendly(anatomy, axis) if given is None else _given(anatomy, axis, given)
        if len(values) > 1 or given is not None:
            out.append(Dial(axis, symbols, values))
    # groups before heads: a public count of heads is read once the groups are known
    return sorted(out, key=lambda d: len(d.axis.symbols))


def _friendly(anatomy: Anatomy, axis: PublicAxis) -> NDArray[np.int64]:
    now, outer = anatomy.sizes[axis.symbol], _outer(anatomy, axis)
    step = kernel_step(axis, now * outer, outer)
    values = np.unique(np.r_[np.arange(step, now + 1, step), now])
    return np.asarray(values[values >= max(1, math.ceil(now * FLOOR))])


def _given(anatomy: Anatomy, axis: PublicAxis, sizes: Sequence[int]) -> NDArray[np.int64]:
    outer, now = _outer(anatomy, axis), anatomy.sizes[axis.symbol]
    least = 0 if axis.symbol in anatomy.family.may_be_zero else 1
    bad = [s for s in sizes if s % outer or not least * outer <= s <= now * outer]
    if bad or not sizes:
        shown = f"multiples of {outer} from" if outer > 1 else "numbers from"
        raise UsageError(f"{axis.name}: sizes {bad or list(sizes)}, expected {shown} {least * outer} to {now * outer}")
    return np.unique(np.array([s // outer for s in sizes], dtype=np.int64))


def _outer(anatomy: Anatomy, axis: PublicAxis) -> int:
    return math.prod(anatomy.sizes[s] for s in axis.symbols[:-1])
