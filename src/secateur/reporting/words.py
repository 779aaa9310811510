"""Numbers as people read them."""

from __future__ import annotations

import math

NOTHING = "–"


def count(n: float | None) -> str:
    """1234567 -> 1.23 M."""
    return _scaled(n, 1000, ("", " k", " M", " B", " T"))


def size(n: float | None) -> str:
    """Bytes, in powers of 1000."""
    return _scaled(n, 1000, (" B", " kB", " MB", " GB", " TB"))


def _scaled(n: float | None, base: int, units: tuple[str, ...]) -> str:
    if n is None:
        return NOTHING
    i = 0
    while abs(n) >= base and i < len(units) - 1:
        n, i = n / base, i + 1
    digits = 0 if i == 0 else max(0, 2 - int(math.log10(max(1, abs(n)))))
    return f"{n:,.{digits}f}{units[i]}"


def number(x: float | None, digits: int = 3) -> str:
    return NOTHING if x is None else f"{x:,.{digits}f}"


def signed(x: float | None, digits: int = 3) -> str:
    """With its sign; a typographic minus."""
    return NOTHING if x is None else f"{x:+,.{digits}f}".replace("-", "−")


def percent(x: float | None, digits: int = 0) -> str:
    return NOTHING if x is None else f"{100 * x:.{digits}f}%"


def times(x: float | None) -> str:
    return NOTHING if x is None else f"{x:.2f}×"


__all__ = ["NOTHING", "count", "number", "percent", "signed", "size", "times"]
