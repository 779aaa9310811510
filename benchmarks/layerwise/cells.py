"""One cell of the tables: a method at a level, made, measured and thrown away."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from secateur import api
from secateur.calibration.text import windows_of
from secateur.errors import UsageError
from secateur.layerwise.base import Method
from secateur.layerwise.run import Job, Sequential, compress
from secateur.layerwise.write import read_audit
from secateur.model import Model, open_model

#: (parent, calibration windows, destination, batch) -> the child is there.
Make = Callable[[Model, Any, Path, int], object]


@dataclass(frozen=True)
class Cell:
    """``label``: row of the table; ``level``: its column; ``tier`` 0 is run before 1. ``seeded``: whether text matters
    to it."""

    label: str
    level: str
    make: Make
    tier: int = 0
    seeded: bool = True


def cell(
    step: str, label: str, level: str, method: Method, tier: int = 0, sequential: Sequential = "layer", **options: Any
) -> Cell:
    """A method of a registry with some options."""
    settings = method.configure(**options)

    def make(parent: Model, windows: Any, out: Path, batch: int) -> object:
        return compress(parent, windows, out, method, settings, Job(step=step, batch=batch, sequential=sequential))

    return Cell(label, level, make, tier, method.needs != "nothing")


@dataclass(frozen=True)
class Bench:
    """Text and sizes that all cells of a parent share. ``limit``: bytes of held-out text."""

    parent: Path
    text: Sequence[Path]
    held_out: Path
    samples: int = 36
    length: int = 256
    batch: int = 4
    limit: str = "120kB"
    window: int = 256
    extra: dict[str, Any] = field(default_factory=dict)

    def loss(self, folder: Path) -> dict[str, Any]:
        """Held-out loss in nats per token, and bits per byte."""
        found = api.evaluate([folder], self.held_out, limit=self.limit, window=self.window, dtype="float32", fast=True)
        told = found["models"][0]["text"]["total"]
        return {k: told[k] for k in ("loss", "bits_per_byte")}

    def run(self, cell: Cell, seed: int) -> dict[str, Any]:
        """Compress, measure, forget. Layer errors are medians over linears. A method that refuses the parent is a
        result too."""
        with open_model(self.parent) as parent, TemporaryDirectory() as folder:
            windows = windows_of(parent, list(self.text), samples=self.samples, length=self.length, seed=seed)
            out, began = Path(folder) / "child", time.perf_counter()
            try:
                cell.make(parent, windows, out, self.batch)
            except UsageError as error:
                return {"refused": error.message}
            seconds = time.perf_counter() - began
            found = {**self.loss(out), "seconds_to_compress": round(seconds, 1)}
            audit = read_audit(out) if (out / "secateur.json").exists() else {"linears": []}
            return found | _errors(audit.get("linears", []))


def _errors(linears: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"linears": sum(line.get("action", "done") == "done" for line in linears)}  # MoDeGPT: pairs
    for what in ("predicted", "measured"):
        known = [line[what] for line in linears if line.get(what) is not None and math.isfinite(line[what])]
        if known:
            found[f"error_{what}"] = statistics.median(known)
    return found
