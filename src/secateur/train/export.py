"""The healed student as a standard checkpoint: its own files, with the tensors that were trained."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.checkpoint import DTYPES, TensorSpec, copy_passengers, list_passengers, publish, write_json, write_tensors
from secateur.errors import CheckpointError
from secateur.model import Model
from secateur.pruning.provenance import FILE


def on_disk(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names the checkpoint has on disk, where transformers renames or fuses when loading."""
    from transformers.core_model_loading import revert_weight_conversion

    return dict(revert_weight_conversion(model, dict(state)))


def export(
    student: Model,
    tensors: Mapping[str, Tensor],
    out: Path,
    record: dict[str, Any],
    *,
    extra: Mapping[str, Path],
    overwrite: bool = False,
) -> None:
    """Write ``tensors`` (on-disk names) in the student's own names, order and dtypes, with its config.json unchanged,
    its tokenizer, and ``record`` as secateur.json. ``extra``: files and folders to take along, by their new name.

    CheckpointError when a tensor has another shape than on disk, or the disk refuses.
    """
    store = student.weights
    specs = [TensorSpec(n, i.dtype, i.shape) for n, i in store.tensors.items()]
    kept = sorted(set(store.tensors) - set(tensors))
    _all_have_a_place(store.tensors, tensors)
    for name, tensor in tensors.items():
        if name in store.tensors and tuple(tensor.shape) != store.tensors[name].shape:
            raise CheckpointError(
                f"tensor {name!r} has shape {list(tensor.shape)} after training, "
                f"{list(store.tensors[name].shape)} on disk"
            )

    def produce(spec: TensorSpec) -> Tensor:
        found = tensors.get(spec.name)
        return store.read(spec.name) if found is None else found.detach().to(DTYPES[spec.dtype][0])

    with publish(out, overwrite=overwrite) as staging:
        write_tensors(staging, specs, produce)
        shutil.copyfile(student.folder / "config.json", staging / "config.json")
        passengers = copy_passengers(student.folder, staging, list_passengers(student.folder))
        files = {p.name: p.action if p.action == "carried" else f"left: {p.reason}" for p in passengers}
        summary = {"trained": len(specs) - len(kept), "copied": len(kept)}
        audit = {"summary": summary, "copied": kept, "files": files | {"config.json": "copied"}}
        for name, path in extra.items():
            if path.exists():
                (shutil.copytree if path.is_dir() else shutil.copyfile)(path, staging / name)
        write_json(staging / FILE, {**record, "audit": audit})


def _all_have_a_place(disk: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Every trained tensor goes to disk, under its name or (where weights are tied) under that of its equal."""
    for name in set(tensors) - set(disk):
        tensor = tensors[name]
        if not any(n in disk and t.shape == tensor.shape and torch.equal(t, tensor) for n, t in tensors.items()):
            raise CheckpointError(
                f"tensor {name!r} was trained, but the student's checkpoint has none of this name",
                hint="this version of transformers names it otherwise than the one that wrote the checkpoint",
            )


def gathered(model: Any, *, main: bool) -> dict[str, Tensor]:
    """The model's state on the CPU, gathered from its shards under FSDP. Every process calls this; only ``main``
    keeps it."""
    from secateur.train.state import whole

    found = {}
    for name, tensor in model.state_dict().items():
        full = whole(tensor)
        if main:
            found[name] = full
    return found
