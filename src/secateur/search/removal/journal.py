"""What removals cost, on disk: an interrupted search begins again and finds everything it asks for here.

A line is ``{"batch": 0, "removed": "layer 3, scan 5", "costs": [kl, nll, mse]}``; the first one says of what model and
text. A line that was cut off by a crash is passed over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from secateur.checkpoint.files import disk_error
from secateur.errors import UsageError
from secateur.model import Model
from secateur.pruning.removed import parse_unit
from secateur.search.removal.places import Removal


class Journal:
    """``known``: (batch, removal) -> costs. Raises UsageError when the file holds those of another model or text."""

    def __init__(self, path: Path, model: Model, batches: Iterable[Tensor]) -> None:
        sizes = {n: p.stat().st_size for n, p in sorted((f, model.folder / f) for f in model.weights.files)}
        text = hashlib.sha256(b"|".join(b.cpu().numpy().tobytes() for b in batches)).hexdigest()
        identity = {"config": model.config_sha256, "weights": sizes, "text": text}
        self.path, self.known = path, dict[tuple[int, Removal], Tensor]()
        lines = _lines(path)
        if lines and lines[0].get("removals_of") != identity:
            raise UsageError(
                f"{path} holds what removals cost another model, or on other text", hint="name another file"
            )
        for line in lines[1:]:
            units = filter(None, line["removed"].split(", "))
            removal = frozenset(parse_unit(u, model.anatomy) for u in units)
            self.known[line["batch"], removal] = torch.tensor(line["costs"], dtype=torch.float64)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
            # a line without an end must not swallow the next one
            self._write("" if lines else json.dumps({"removals_of": identity}))
        except OSError as cause:
            raise disk_error(cause, path) from cause

    def add(self, batch: int, removal: Removal, costs: Tensor) -> None:
        """Write one measurement down."""
        self.known[batch, removal] = costs
        names = ", ".join(str(u) for u in sorted(removal))
        try:
            self._write(json.dumps({"batch": batch, "removed": names, "costs": costs.tolist()}))
        except OSError as cause:
            raise disk_error(cause, self.path) from cause

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """No more will come."""
        self._file.close()


def _lines(path: Path) -> list[dict]:  # type: ignore[type-arg]
    found = []
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as cause:
        raise UsageError(f"{path}: cannot be read: {cause}") from cause
    for line in filter(None, text.splitlines()):
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
