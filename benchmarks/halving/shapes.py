"""The shapes that are cut to, as parts of the parent's sizes: the same for every method, so only kept units differ."""

from __future__ import annotations

from fractions import Fraction

from secateur.errors import UsageError
from secateur.model import Model

#: name -> public axis -> part that stays. ``60`` and ``45``: per cent of the parameters outside embedding and head.
SHAPES: dict[str, dict[str, Fraction]] = {
    "60": {"ssm_heads": Fraction(5, 8), "ffn": Fraction(63, 128)},
    "45": {"ssm_heads": Fraction(4, 8), "ffn": Fraction(19, 64)},
    # an eighth of the inner width, or the state that holds as many parameters (within 2%)
    "heads": {"ssm_heads": Fraction(7, 8)},
    "channels": {"ssm_head_dim": Fraction(7, 8)},
    "state": {"ssm_state": Fraction(1, 4)},
}


def sizes(model: Model, shape: str) -> dict[str, int]:
    """Public sizes of ``shape``. Raises UsageError where a part of the parent's size is no whole number."""
    now = model.anatomy.public_sizes(model.anatomy.sizes)
    found = {}
    for axis, part in SHAPES[shape].items():
        size = now[axis] * part
        if size.denominator != 1:
            raise UsageError(f"shape {shape!r} keeps {part} of {axis} = {now[axis]}, which is no whole number")
        found[axis] = int(size)
    return found


def inner(model: Model) -> int:
    """Parameters outside embedding and head."""
    anatomy = model.anatomy
    return anatomy.count() - 2 * anatomy.sizes["v"] * anatomy.sizes["d"]
