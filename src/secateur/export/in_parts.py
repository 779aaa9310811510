"""The engine's storage for methods whose solutions have parts: a packed checkpoint comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from secateur.export.packed import Entry, seal
from secateur.layerwise.base import Solution
from secateur.layerwise.places import Place
from secateur.model import Model


class InParts:
    """Stores ``Solution.parts`` under a format of :data:`secateur.export.formats.FORMATS`; whole where there are none.

    All it knows lies in what it stores, so an interrupted run needs only the files of finished layers.
    """

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
        stored = {f"{place.name}#{part}": t for part, t in parts.items()}
        return stored | {f"{place.name}#{self.format}": entry.marker}

    def config(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The parent's."""
        return dict(raw)

    def finish(self, model: Model, folder: Path) -> None:
        """Once everything is written: the folder stops looking like a standard checkpoint."""
        seal(model, folder)
