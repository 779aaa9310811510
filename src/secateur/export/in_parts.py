"""The engine's storage for methods whose solutions have parts: what the work folder holds, and the manifest from it.

A stored linear is "<name>#<part>" for each part and "<name>#<format>", a marker of 33 bytes: whether its matrices lie
input first, and the sha256 of the whole tensor. An interrupted run finds all it needs in the files of finished layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from secateur.export.formats import FORMATS
from secateur.export.packed import Entry, Read
from secateur.layerwise.base import Solution
from secateur.layerwise.places import Place
from secateur.model import Model


class InParts:
    """Stores ``Solution.parts`` under a format of :data:`FORMATS`; what has no parts, or is stacked with such, whole."""

    def __init__(self, format: str) -> None:
        self.format = format

    def tensors(
        self, place: Place, solutions: Sequence[Solution | None], dense: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """What takes the place of the weight; checked to give ``dense`` back to the last bit."""
        found = [s.parts for s in solutions if s is not None and s.parts]
        if len(found) < len(solutions):
            return {place.name: dense}
        parts = {part: torch.stack([p[part] for p in found]) for part in found[0]}
        entry = Entry.of(self.format, parts, dense, input_first=place.input_first)
        marker = bytes([entry.input_first]) + bytes.fromhex(entry.sha256)
        stored = {f"{place.name}#{part}": t for part, t in parts.items()}
        return stored | {f"{place.name}#{self.format}": torch.frombuffer(bytearray(marker), dtype=torch.uint8)}


def entries(model: Model, names: Iterable[str], read: Read) -> dict[str, Entry]:
    """The manifest of what lies in a work folder: ``names`` of its tensors, and how to read one."""
    parts: dict[str, list[str]] = {}
    for name in names:
        tensor, _, part = name.partition("#")
        if part:
            parts.setdefault(tensor, []).append(part)
    found = {}
    for tensor, held in parts.items():
        format = next(f for f in FORMATS if f in held)
        marker = bytes(read(f"{tensor}#{format}").tolist())
        info = model.weights.tensors[tensor]
        kept = tuple(p for p in held if p != format)
        found[tensor] = Entry(format, info.dtype, info.shape, kept, bool(marker[0]), marker[1:].hex())
    return found
