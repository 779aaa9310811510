"""Units that can be removed: layers, and what no shape can say: sub-blocks, scans, runs of MLP channels.

    layer 3             the whole decoder layer: the config drops it
    ffn 3               what stands in one slot of layer 3 (names of slots: anatomy) writes nothing
    scan 3              the SSM of layer 3: y = x, the D skip gone too; gate, norm and out_proj stay (arXiv 2501.17088)
    channels 3:512-767  these channels of its MLP

What they become in a checkpoint: :mod:`secateur.pruning.silenced`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.axes import PUBLIC
from secateur.errors import InexpressibleError, UsageError

LAYER, SCAN, CHANNELS = "layer", "scan", "channels"
FFN = PUBLIC["ffn"].symbol
_UNIT = re.compile(r"([a-z_]\w*) (\d{1,6})(?::(\d{1,9})-(\d{1,9}))?", re.ASCII)
SKIP = "D"
"""The last piece of the name of a scan's skip weight."""


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """``part``: 'layer', 'scan', 'channels' or the name of a slot; ``first`` to ``last`` (excluded): channels."""

    layer: int
    part: str
    first: int = 0
    last: int = 0

    def __str__(self) -> str:
        return f"{self.part} {self.layer}" + (f":{self.first}-{self.last - 1}" if self.part == CHANNELS else "")


def parse_unit(text: str, anatomy: Anatomy) -> Unit:
    """Inverse of ``str(unit)``. Raises UsageError for what this model does not have."""
    match = _UNIT.fullmatch(text)
    unit = Unit(int(match[2]), match[1], int(match[3] or 0), int(match[4] or -1) + 1) if match else None
    if unit is None or (unit.part == CHANNELS) != bool(match and match[3]):
        raise UsageError(f"unit {text!r}: expected 'layer 3', 'scan 3', 'channels 3:0-127' or a slot with a layer")
    check_unit(unit, anatomy)
    return unit


def check_unit(unit: Unit, anatomy: Anatomy) -> None:
    """Raises UsageError when the model has no such unit, InexpressibleError when weights are shared with others."""
    if not 0 <= unit.layer < anatomy.n_layers:
        raise UsageError(f"{unit}: the layers are 0 to {anatomy.n_layers - 1}")
    if unit.part == LAYER:
        return
    slots = {SCAN: scan_slot, CHANNELS: channel_slot}
    slot = slots[unit.part](anatomy, unit.layer) if unit.part in slots else unit.part
    names = [s.name for s in anatomy.family.slots]
    if slot not in names:
        has = ", ".join([LAYER, *names])
        raise UsageError(f"{unit}: layer {unit.layer} ({'+'.join(anatomy.kinds[unit.layer])}) has none; it has {has}")
    if unit.part == CHANNELS and not unit.first < unit.last <= anatomy.sizes[FFN]:
        raise UsageError(f"{unit}: expected channels within 0-{anatomy.sizes[FFN] - 1}")
    if unit.layer in anatomy.shared_users and unit.part != SCAN:
        raise InexpressibleError(f"{unit}: layer {unit.layer} shares these weights with others; remove whole layers")


def block_patterns(anatomy: Anatomy, layer: int, slot: str) -> list[tuple[str, lo.Layout]]:
    """(name pattern, layout) of what stands in a slot of a layer.

    Norms of the stream are left out: where a family declares them with a block, one of them is often another block's.
    """
    kinds = dict(zip((s.name for s in anatomy.family.slots), anatomy.kinds[layer], strict=True))
    found = anatomy.block_layouts[slot, kinds[slot]]
    return [(n, la) for n, la in found if la.axes != ("d",) or lo.norm_extent(la, anatomy.sizes) is None]


def scan_slot(anatomy: Anatomy, layer: int) -> str | None:
    """The slot of a layer that holds a scan with B, C and a D skip; None where there is none."""
    for slot in anatomy.family.slots:
        patterns = block_patterns(anatomy, layer, slot.name)
        labelled = any({"B", "C"} <= lo.labels(la, anatomy.sizes).keys() for _, la in patterns)
        if labelled and any(name.rpartition(".")[2] == SKIP for name, _ in patterns):
            return slot.name
    return None


def channel_slot(anatomy: Anatomy, layer: int) -> str | None:
    """The slot of a layer with an MLP of plain channels; None where there is none."""
    for slot in anatomy.family.slots:
        if any(FFN in layout.axes for _, layout in block_patterns(anatomy, layer, slot.name)):
            return slot.name
    return None


def slot_of(unit: Unit, anatomy: Anatomy) -> str | None:
    """The slot a unit lies in; None for whole layers."""
    if unit.part == LAYER:
        return None
    special = {SCAN: scan_slot, CHANNELS: channel_slot}.get(unit.part)
    return unit.part if special is None else special(anatomy, unit.layer)


def canonical(units: Iterable[Unit], anatomy: Anatomy) -> frozenset[Unit]:
    """The same removal in the fewest units: nothing inside a removed sub-block or layer, full layers as layers."""
    found, slots = set(units), {s.name for s in anatomy.family.slots}
    for layer in {u.layer for u in found}:
        here = {u for u in found if u.layer == layer}
        if any(u.part == LAYER for u in here) or slots <= {u.part for u in here}:
            found = found - here | {Unit(layer, LAYER)}
        else:
            found -= {u for u in here if u.part not in slots and Unit(layer, slot_of(u, anatomy) or "") in here}
    return frozenset(found)


def split(units: Iterable[Unit], anatomy: Anatomy) -> tuple[tuple[int, ...], tuple[Unit, ...]]:
    """(layers that stay, units removed inside of them)."""
    whole = canonical(units, anatomy)
    gone = {u.layer for u in whole if u.part == LAYER}
    return tuple(i for i in range(anatomy.n_layers) if i not in gone), tuple(
        sorted(u for u in whole if u.part != LAYER)
    )
