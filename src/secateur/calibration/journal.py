"""Where interrupted work on text resumes: streams and sums after the last finished layer, in a folder whole or absent.

Tensors are written and read one at a time, so a state may be larger than memory. Several processes save at the same
layers and keep two states each: one that died between two saves leaves the rest a layer all of them have.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from secateur.calibration.observer import Observer
from secateur.calibration.ranks import agreed, everyone, rank_and_world
from secateur.checkpoint import CODES, TensorSpec, TensorStore, write_json, write_tensors
from secateur.checkpoint.files import disk_error
from secateur.checkpoint.publish import sync_tree
from secateur.errors import CheckpointError
from secateur.model import Model

EVERY_SECONDS = 60.0
NOTE = "note.json"

#: A tensor's shape and dtype under its name, and how to get it.
Part = tuple[TensorSpec, Callable[[], torch.Tensor]]


def part(name: str, tensor: torch.Tensor) -> Part:
    """A tensor that is in memory anyway."""
    return TensorSpec(name, CODES[tensor.dtype], tuple(tensor.shape)), lambda: tensor


def fingerprint(models: Sequence[Model], tensors: Sequence[torch.Tensor], *facts: object) -> str:
    """What a state belongs to: configs, weight files by size and time, token ids, and whatever else shapes it."""
    digest = hashlib.sha256(repr(facts).encode())
    for model in models:
        digest.update(model.config_sha256.encode())
        for name, path in sorted(model.weights.files.items()):
            status = path.stat()
            digest.update(f"{name} {status.st_size} {status.st_mtime_ns}".encode())
    for ids in tensors:
        digest.update(ids.cpu().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class State:
    """What was saved: ``at`` layers were done, ``note`` as it was given, tensors by name."""

    at: int
    note: Mapping[str, Any]
    store: TensorStore

    def read(self, name: str) -> torch.Tensor:
        return self.store.read(name)

    def names(self, prefix: str) -> list[str]:
        """Names that begin with ``prefix``, without it."""
        return [n.removeprefix(prefix) for n in self.store.tensors if n.startswith(prefix)]


class Journal:
    """The states of one piece of work in ``folder``; ``key`` keeps apart what belongs to other models or text."""

    def __init__(self, folder: Path, key: str, name: str = "walk") -> None:
        rank, self._world = rank_and_world()
        self.folder, self.key, self._prefix = folder, key, f"{name}-{rank}-"
        self._saved = time.monotonic()

    def found(self) -> State | None:
        """The newest state that every process has; None when there is none of this work."""
        mine = {state.at: state for state in map(self._read, self._folders()) if state is not None}
        common = set.intersection(*map(set, everyone(sorted(mine))))
        return mine[max(common)] if common else None

    def save(self, at: int, parts: Sequence[Part], note: Mapping[str, Any], *, force: bool = False) -> None:
        """Record that ``at`` layers are done; at most once a minute by the clock of the first process, unless forced.

        Raises CheckpointError when the disk refuses; the state saved before stays.
        """
        if not agreed(force or time.monotonic() - self._saved >= EVERY_SECONDS):
            return
        folder, partial = self.folder / f"{self._prefix}{at:06d}", self.folder / f"{self._prefix}part"
        makers = {spec.name: make for spec, make in parts}
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            write_tensors(partial, [spec for spec, _ in parts], lambda spec: makers[spec.name]())
            write_json(partial / NOTE, {"key": self.key, "at": at, **note})
            sync_tree(partial)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        except OSError as cause:
            raise disk_error(cause, folder) from cause
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for old in self._folders()[: -2 if self._world > 1 else -1]:
            shutil.rmtree(old, ignore_errors=True)
        self._saved = time.monotonic()

    def close(self) -> None:
        """The work is done: its states are of no further use."""
        for path in self.folder.glob(f"{self._prefix}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _folders(self) -> list[Path]:
        """States, oldest first."""
        return sorted(p for p in self.folder.glob(f"{self._prefix}*") if not p.name.endswith("part"))

    def _read(self, path: Path) -> State | None:
        try:
            note = json.loads((path / NOTE).read_text())
            return State(int(note["at"]), note, TensorStore.open(path)) if note["key"] == self.key else None
        except (OSError, ValueError, KeyError, TypeError, CheckpointError):
            return None  # of another version, or damaged: the work begins anew


class WalkJournal:
    """The journal of one walk: hidden states of all batches, and what observers have summed."""

    def __init__(
        self, folder: Path, model: Model, batches: Sequence[torch.Tensor], observers: Sequence[Observer], *facts: object
    ) -> None:
        self.observers = observers
        self.journal = Journal(folder, fingerprint([model], batches, *facts, *map(repr, observers)))

    def resume(self, hidden: MutableSequence[torch.Tensor]) -> int:
        """Restore the state of an interrupted walk; returns the layer to go on with (0 when there is none)."""
        state = self.journal.found()
        if state is None:
            return 0
        for b, before in enumerate(hidden):
            hidden[b] = state.read(f"hidden.{b}").to(before.device)
        for i, o in enumerate(self.observers):
            at = state.note["devices"]
            prefix = f"observer.{i}."
            o.state = {k: state.read(prefix + k).to(at[prefix + k]) for k in state.names(prefix)}
        return state.at

    def save(self, layer: int, hidden: Sequence[torch.Tensor], *, force: bool = False) -> None:
        """Record that all layers before ``layer`` are done; at most once a minute unless forced."""
        kept = {f"observer.{i}.{k}": v for i, o in enumerate(self.observers) for k, v in o.state.items()}
        parts = [*streams("hidden", hidden), *(part(name, tensor) for name, tensor in kept.items())]
        self.journal.save(layer, parts, {"devices": {name: str(t.device) for name, t in kept.items()}}, force=force)

    def close(self) -> None:
        self.journal.close()


def streams(name: str, hidden: Sequence[torch.Tensor]) -> list[Part]:
    """The states of every batch, read only when they are written."""
    shapes = getattr(hidden, "shapes", None) or [(tuple(h.shape), h.dtype) for h in hidden]
    return [
        (TensorSpec(f"{name}.{b}", CODES[dtype], shape), lambda b=b: hidden[b])  # type: ignore[misc]
        for b, (shape, dtype) in enumerate(shapes)
    ]


__all__ = ["EVERY_SECONDS", "Journal", "Part", "State", "WalkJournal", "fingerprint", "part", "streams"]
