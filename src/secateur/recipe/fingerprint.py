"""What a step's result depends on, and what is known of results that are there.

The fingerprint of a step: its verb and settings (defaults included), the versions of the libraries, the fingerprints
of the steps it reads and the state of the files it reads. Small files count by their bytes, larger ones by size and
time of change; what lies on the hub counts by its name.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from secateur.errors import CheckpointError
from secateur.pruning.provenance import versions
from secateur.recipe.options import MADE
from secateur.recipe.steps import Recipe, Step

SMALL = 1 << 20
"""Up to so many bytes a file counts by its contents."""

Fingerprint = dict[str, str]
"""What counts (``setting samples``, ``input model``) -> its value or digest."""


class Fingerprints:
    """The fingerprints of one recipe's steps, each taken once."""

    def __init__(self) -> None:
        self._done: dict[str, Fingerprint] = {}
        self._places: dict[str, str] = {}

    @cached_property
    def _versions(self) -> Fingerprint:
        return {f"version of {k}": v for k, v in versions().items()}

    def of(self, step: Step) -> Fingerprint:
        """Flat, so that two of them can be told apart in words."""
        if step.name not in self._done:
            settings = {f"setting {k}": json.dumps(v, default=str) for k, v in step.settings.items()}
            inputs = {f"input {k}": digest([self._input(k, v) for v in vs]) for k, vs in step.paths.items()}
            self._done[step.name] = {"verb": step.verb.name, **settings, **inputs, **self._versions}
        return self._done[step.name]

    def digest(self, step: Step) -> str:
        return digest(self.of(step))

    def _input(self, key: str, value: Step | str) -> str:
        if isinstance(value, Step):
            return self.digest(value)
        return value if key in MADE else self._outside(value)

    def _outside(self, place: str) -> str:
        if place not in self._places:
            path = Path(place)
            self._places[place] = digest([place, state(path, contents=True) if path.exists() else "elsewhere"])
        return self._places[place]


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def state(path: Path, *, contents: bool = False) -> str:
    """Digest of the files at or below ``path``: names, sizes and times of change, or the bytes of small ones."""
    return digest([[name, *_file(file, contents)] for name, file in _files(path)])


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if not path.is_dir():
        yield path.name, path
        return
    for place, folders, names in os.walk(path, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(n for n in names if not n.startswith(".")):
            file = Path(place, name)
            yield str(file.relative_to(path)), file


def _file(path: Path, contents: bool) -> list[Any]:
    try:
        status = path.stat()
        if contents and status.st_size <= SMALL and path.is_file():
            return [hashlib.sha256(path.read_bytes()).hexdigest()]
    except OSError as e:
        raise CheckpointError(f"cannot read {path}: {e.strerror}") from e
    return [status.st_size, status.st_mtime_ns]


@dataclass(frozen=True, slots=True)
class Note:
    """What is known of a step. ``state``: "started" before anything is written, "done" when the result is whole."""

    state: Literal["started", "done"]
    fingerprint: Fingerprint
    result: str = ""
    seconds: float = 0.0

    def write(self, recipe: Recipe, step: Step) -> None:
        """Whole or not at all. CheckpointError when the disk refuses."""
        path = note_path(recipe, step)
        partial = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(asdict(self), indent=1))
            partial.replace(path)
        except OSError as e:
            raise CheckpointError(f"cannot write {path}: {e.strerror}") from e


def note_path(recipe: Recipe, step: Step) -> Path:
    return recipe.notes / f"{step.name}.json"


def read_note(recipe: Recipe, step: Step) -> Note | None:
    """None when there is none, or nothing that can be read."""
    try:
        return Note(**json.loads(note_path(recipe, step).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def difference(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """The first things that differ, in words."""
    told = []
    for key in sorted({*old, *new}, key=lambda k: (k.startswith("version"), k)):
        a, b = old.get(key), new.get(key)
        if a != b:
            told.append(f"{key} changed" if key.startswith("input") else f"{key}: {a or 'none'} -> {b or 'none'}")
    return ", ".join(told[:3]) + (", ..." if len(told) > 3 else "")
