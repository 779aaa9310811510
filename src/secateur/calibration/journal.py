"""Where an interrupted walk resumes: hidden states and statistics after the last finished layer, written atomically."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from secateur.model import Model

if TYPE_CHECKING:
    from secateur.calibration.walker import Observer

EVERY_SECONDS = 60.0


class Journal:
    """One folder, one walk: a fingerprint of model, text and observers guards against resuming another walk's state."""

    def __init__(self, folder: Path, model: Model, batches: Sequence[torch.Tensor]) -> None:
        self.folder = folder
        digest = hashlib.sha256(model.config_sha256.encode())
        for ids in batches:
            digest.update(ids.cpu().numpy().tobytes())
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        self.key = digest.hexdigest()
        self.path = folder / f"walk-{rank}.safetensors"
        self.saved = time.monotonic()

    def resume(self, hidden: list[torch.Tensor], observers: Sequence[Observer]) -> int:
        """Restore the state of an interrupted walk; returns the layer to go on with (0 when there is none)."""
        if not self.path.is_file():
            return 0
        from safetensors import safe_open

        with safe_open(self.path, "pt") as f:
            note = json.loads((f.metadata() or {}).get("walk", "{}"))
        if note.get("key") != self.key or note.get("observers") != _names(observers):
            return 0
        stored = load_file(self.path)
        hidden[:] = [stored[f"hidden.{b}"] for b in range(len(hidden))]
        for i, o in enumerate(observers):
            prefix = f"observer.{i}."
            o.state = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
        return int(note["layer"])

    def save(
        self, layer: int, hidden: Sequence[torch.Tensor], observers: Sequence[Observer], force: bool = False
    ) -> None:
        """Record that all layers before ``layer`` are done; at most once a minute unless forced."""
        if not force and time.monotonic() - self.saved < EVERY_SECONDS:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Any] = {f"hidden.{b}": h.contiguous() for b, h in enumerate(hidden)}
        for i, o in enumerate(observers):
            tensors |= {f"observer.{i}.{k}": v.contiguous() for k, v in o.state.items()}
        note = json.dumps({"key": self.key, "layer": layer, "observers": _names(observers)})
        partial = self.path.with_suffix(".part")
        save_file(tensors, partial, {"walk": note})
        partial.replace(self.path)
        self.saved = time.monotonic()

    def close(self) -> None:
        """The walk is done: its state is of no further use."""
        self.path.unlink(missing_ok=True)


def _names(observers: Sequence[Observer]) -> list[str]:
    return [repr(o) for o in observers]
