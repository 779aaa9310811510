"""A sparse checkpoint in the bytes its non-zero entries take; back to the last bit with :func:`~.packed.expand`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from secateur.checkpoint import CODES, TensorSpec, publish, require_space, write_json, write_tensors
from secateur.checkpoint.passengers import copy_passengers, list_passengers
from secateur.errors import UsageError
from secateur.export.formats import bitmap
from secateur.export.packed import Entry, Progress, seal
from secateur.model import Model
from secateur.pruning.provenance import FILE

_MARKER = "bitmap"


@dataclass(frozen=True, slots=True)
class Stored:
    """``packed``: tensors stored with a bitmap; ``before``, ``after``: bytes of all tensors."""

    packed: int
    before: int
    after: int


def write_sparse(model: Model, out: Path, *, overwrite: bool = False, progress: Progress | None = None) -> Stored:
    """Write ``model`` to the folder ``out``, every tensor with a bitmap that is smaller so; one tensor in memory.

    Raises UsageError when no tensor is: there is nothing to gain.
    """
    parts = _Parts(model)
    specs = [spec for name in model.weights.tensors for spec in parts.specs(name)]
    packed = sum(spec.name.endswith(f"#{_MARKER}") for spec in specs)
    if not packed:
        raise UsageError(
            f"{model.source}: no tensor has enough zeros for a bitmap to save bytes",
            hint="`secateur sparsify` makes some",
        )
    total, done = sum(s.nbytes for s in specs), 0

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(done, total)

    require_space(out, total)
    with publish(out, overwrite=overwrite) as staging:
        write_tensors(staging, specs, parts.produce, progress=advance)
        seal(model, staging)
        write_json(staging / "config.json", model.raw)
        copy_passengers(model.folder, staging, list_passengers(model.folder))
        if (model.folder / FILE).is_file():
            write_json(staging / FILE, json.loads((model.folder / FILE).read_text(encoding="utf-8")))
    return Stored(packed, model.weights.total_bytes, total)


class _Parts:
    """Tensors of a model, whole or in parts; the parts of one tensor come one after another."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.name, self.parts = "", dict[str, torch.Tensor]()

    def specs(self, name: str) -> list[TensorSpec]:
        """What is written for one tensor."""
        info, tensor = self.model.weights.tensors[name], self.model.read(name)
        said = bitmap.shapes(tensor) | {_MARKER: (torch.uint8, (33,))}
        if sum(math.prod(shape) * dtype.itemsize for dtype, shape in said.values()) >= info.nbytes:
            return [TensorSpec(name, info.dtype, info.shape)]
        return [TensorSpec(f"{name}#{part}", CODES[dtype], shape) for part, (dtype, shape) in said.items()]

    def produce(self, spec: TensorSpec) -> torch.Tensor:
        """The tensor, or the part, of that name."""
        whole, _, part = spec.name.partition("#")
        if not part:
            return self.model.read(whole)
        if whole != self.name:
            tensor = self.model.read(whole)
            parts = bitmap.pack(tensor)
            self.name = whole
            self.parts = parts | {_MARKER: Entry.of("bitmap", parts, tensor, input_first=False).marker}
        return self.parts[part]
