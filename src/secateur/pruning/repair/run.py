"""repair: a freshly cut child and its parent in, the child with closed-form repairs out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateur.calibration.journal import Journal, fingerprint
from secateur.checkpoint import DTYPES, TensorSpec, publish, require_space, write_json, write_tensors
from secateur.checkpoint.passengers import copy_passengers, list_passengers
from secateur.errors import UsageError
from secateur.importance.document import IMPORTANCE
from secateur.model import Model, open_model
from secateur.pruning.provenance import FILE, versions
from secateur.pruning.recorded import read_record, recorded_cut
from secateur.pruning.repair.kept import Kept
from secateur.pruning.repair.layer import METHODS, LayerRepair, Repair
from secateur.pruning.repair.pair import Book, walk_pair

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RepairSettings:
    """See :class:`LayerRepair`. ``batch``: windows at a time."""

    methods: tuple[str, ...] = METHODS
    damp: float | None = None
    feedback: bool = True
    batch: int = 4


def repair(
    child: Model,
    parent: Model,
    windows: torch.Tensor,
    out: Path,
    settings: RepairSettings | None = None,
    *,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    journal: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Model, list[Repair]]:
    """Repair ``child`` on calibration ``windows`` of parent token ids, (samples, tokens), and write it to ``out``.

    Returns the repaired child and every attempt. Memory: one layer of each model, the hidden states of all windows;
    repaired tensors wait on disk. ``journal``: a folder from which an interrupted repair resumes.
    Raises UsageError when the child does not come from this parent, or there are fewer than two batches, and whatever
    :func:`publish` has against ``out``, before any text is read.
    """
    settings = settings or RepairSettings()
    cut = recorded_cut(parent, child)
    batches = _batches(cut.keep.get("v", "", {}), parent.anatomy.sizes["v"], windows, settings.batch)
    rows = cut.keep.get("d", "", {}).tolist()
    work = LayerRepair(cut, settings.methods, settings.damp, settings.feedback)
    if cut.norms.mode == "eps-exact" and cut.new_sizes["d"] != parent.anatomy.sizes["d"]:
        raise UsageError(
            "repair compares residual streams, and --norm eps-exact rescales the child's",
            hint="cut with --norm auto to repair",
        )
    require_space(out, child.weights.total_bytes * (1 if journal is not None else 2))
    with publish(out, overwrite=overwrite) as staging:
        place = (journal or staging) / "repaired-tensors"
        work.changed = Kept(place, lambda name: DTYPES[child.dtype(name)][0])
        book = None if journal is None else _book(journal, child, parent, batches, work, settings)
        walk_pair(parent, child, cut.layers, rows, batches, work, device=device, book=book, progress=progress)
        _write(child, work, staging, {"windows": list(windows.shape), **(about or {}), **asdict(settings)})
        shutil.rmtree(place, ignore_errors=True)
    if book is not None:
        book.journal.close()
    return open_model(out), work.log


def _book(
    journal: Path,
    child: Model,
    parent: Model,
    batches: list[tuple[torch.Tensor, torch.Tensor]],
    work: LayerRepair,
    settings: RepairSettings,
) -> Book:
    """What an interrupted repair remembers: both streams, every attempt, and which tensors wait on disk."""
    key = fingerprint([child, parent], [ids for pair in batches for ids in pair], settings)
    kept = work.changed

    def hear(note: Mapping[str, Any]) -> None:
        work.log[:] = [Repair(**attempt) for attempt in note["attempts"]]
        assert isinstance(kept, Kept)
        work.changed = Kept(kept.folder, kept.dtype, note["changed"])

    return Book(
        Journal(journal, key, "repair"),
        lambda: {"attempts": [asdict(r) for r in work.log], "changed": list(work.changed)},
        hear,
    )


def _batches(
    kept: np.ndarray[Any, Any], vocabulary: int, windows: torch.Tensor, size: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(parent ids, child ids); windows with tokens the child no longer has are left out."""
    new = torch.full((vocabulary,), -1, dtype=torch.long)
    new[torch.from_numpy(kept)] = torch.arange(len(kept))
    ids = new[windows]
    usable = (ids >= 0).all(1)
    if int(usable.sum()) < 2 * size:
        raise UsageError(
            f"{int(usable.sum())} windows of text are usable, expected at least {2 * size}: some fit, others judge",
            hint="give more --samples, or a smaller --batch",
        )
    chosen, child_ids = windows[usable], ids[usable]
    return [(chosen[i : i + size], child_ids[i : i + size]) for i in range(0, len(chosen), size)]


def _write(child: Model, work: LayerRepair, folder: Path, about: Mapping[str, Any]) -> None:
    """The child with changed tensors, in its own dtypes; secateur.json gains the step."""
    specs = [TensorSpec(n, i.dtype, i.shape) for n, i in child.weights.tensors.items()]

    def produce(spec: TensorSpec) -> torch.Tensor:
        if spec.name in work.changed:
            return work.changed[spec.name].to(DTYPES[spec.dtype][0])
        return child.read(spec.name)

    entry = read_record(child)
    entry.setdefault("history", []).append(entry.get("step", "prune"))
    entry["step"] = "repair"
    done = {"versions": versions(), "tensors": sorted(work.changed), "attempts": [_said(r) for r in work.log]}
    entry["repair"] = {**about, **done}
    write_tensors(folder, specs, produce)
    write_json(folder / "config.json", child.raw)
    copy_passengers(child.folder, folder, list_passengers(child.folder))
    if (child.folder / IMPORTANCE).exists():  # the scores behind the cut are still those
        shutil.copy2(child.folder / IMPORTANCE, folder / IMPORTANCE)
    write_json(folder / FILE, entry)


def _said(r: Repair) -> dict[str, Any]:
    return {
        "layer": r.layer,
        "tensor": r.tensor,
        "method": r.method,
        "before": r.before,
        "after": r.after,
        "applied": r.applied,
        "damp": r.damp,
    }
