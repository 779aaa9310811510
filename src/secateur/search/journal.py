"""What a search has measured, on disk: every process appends to a file of its own and reads those of all at the start.

A line is ``{"key": ..., "kl": ..., "nll": ..., "seconds": ...}``, the key being the candidate and the stage. A line
that was cut off by a crash is passed over. The first line says which measurements these are (model, text, criterion);
strategy, seed and time are left out, for a score does not depend on them and another strategy may use it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from secateur.checkpoint.files import disk_error
from secateur.errors import UsageError
from secateur.search.stages import Score, Shape, Stage

_NAME = "scores-{}.jsonl"


class Journal:
    """``identity``: JSON of what the scores depend on. Raises UsageError when the folder holds other scores."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, rank: int = 0) -> None:
        self.folder, self.path = folder, folder / _NAME.format(rank)
        self.found: dict[str, Score] = {}
        wanted = json.loads(json.dumps(identity))
        for path in sorted(folder.glob(_NAME.format("*"))):
            lines = _lines(path)
            first = next(lines, None)
            if first is not None and first.get("search") != wanted:
                raise UsageError(
                    f"{folder} holds the scores of another search: {_difference(first.get('search'), wanted)}",
                    hint="name another work folder, or --restart to throw them away",
                )
            self.found |= {line["key"]: Score(line["kl"], line["nll"], line["seconds"]) for line in lines}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fresh = not self.path.is_file() or not self.path.stat().st_size
            self._file = self.path.open("a", encoding="utf-8")
            # a line without an end must not swallow the next one
            self._file.write(json.dumps({"search": wanted}) + "\n" if fresh else "\n")
            self._file.flush()
        except OSError as cause:
            raise disk_error(cause, folder) from cause

    def add(self, shape: Shape, stage: Stage, score: Score) -> None:
        """Write one score down before anything else is measured."""
        try:
            self._file.write(json.dumps({"key": key(shape, stage), **score.to_json()}) + "\n")
            self._file.flush()
        except OSError as cause:
            raise disk_error(cause, self.folder) from cause

    def get(self, shape: Shape, stage: Stage) -> Score | None:
        """What an earlier run measured."""
        return self.found.get(key(shape, stage))

    def close(self) -> None:
        self._file.close()


def key(shape: Shape, stage: Stage) -> str:
    """The same for equal shapes and stages of every run."""
    return json.dumps([type(shape).__name__, shape.to_json(), stage.to_json()], sort_keys=True)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and ("search" in line or line.keys() >= {"key", "kl", "nll", "seconds"}):
            yield line


def _difference(there: Any, here: Mapping[str, Any]) -> str:
    if not isinstance(there, dict):
        return "it says not of what"
    return ", ".join(f"{n} was {there.get(n)!r}, is {here[n]!r}" for n in here if there.get(n) != here[n]) or "others"
