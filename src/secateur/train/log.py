"""What a run writes down: one JSON object a step, and the same for TensorBoard where asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from secateur.checkpoint.files import disk_error
from secateur.errors import CheckpointError, UsageError

METRICS = "metrics.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line cut short by a crash is left out. Line 0, where there is one, holds the
    held-out loss before the first step and nothing of the training."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


class Log:
    """Appends to ``folder/metrics.jsonl``; on resume, lines behind the saved step are dropped first."""

    def __init__(self, folder: Path, step: int, *, tensorboard: bool = False) -> None:
        self.path = folder / METRICS
        # a run that starts over measures its step 0, the student as it came, once more
        kept = [line for line in read_metrics(self.path) if line["step"] <= step] if step else []
        self.elapsed: float = kept[-1]["seconds"] if kept else 0.0
        self.board: Any = _board(folder / "tensorboard", step) if tensorboard else None
        try:
            part = self.path.with_suffix(".part")
            part.write_text("".join(json.dumps(line) + "\n" for line in kept))
            part.replace(self.path)
            self.file = self.path.open("a", buffering=1)
        except OSError as cause:
            raise disk_error(cause, self.path) from cause

    def add(self, line: dict[str, Any]) -> None:
        try:
            self.file.write(json.dumps(line) + "\n")
        except OSError as cause:
            raise disk_error(cause, self.path) from cause
        for name, value in line.items() if self.board is not None else ():
            if name != "step":
                self.board.add_scalar(f"distill/{name}", value, line["step"])

    def close(self) -> None:
        if self.board is not None:
            self.board.close()
        try:
            self.file.close()
        except OSError as cause:
            raise disk_error(cause, self.path) from cause


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as cause:
        raise UsageError(
            f"logs for TensorBoard need the package 'tensorboard', which cannot be imported: {cause}",
            hint="pip install 'secateur[tensorboard]', or do without: metrics.jsonl is always written",
        ) from cause
    try:
        return SummaryWriter(str(folder), purge_step=step + 1)
    except OSError as cause:
        raise CheckpointError(f"{folder}: cannot be written: {cause}") from cause
