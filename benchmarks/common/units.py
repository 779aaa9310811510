"""Runs as units: named by their settings, done once, written down as one line each."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Unit:
    """``settings`` name the unit; ``run`` gives its result."""

    settings: dict[str, Any]
    run: Callable[[], dict[str, Any]]

    @property
    def name(self) -> str:
        return " ".join(f"{k}={v}" for k, v in self.settings.items())


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a results file; a last line cut short is left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def done(unit: Unit, path: Path) -> bool:
    return any(line["settings"] == unit.settings for line in read(path))


def run_all(units: Iterable[Unit], path: Path, locks: Path, say: Callable[[str], None]) -> int:
    """Run what has no result yet and nobody else holds; returns how many units were run."""
    count = 0
    for unit in units:
        if done(unit, path):
            continue
        with held(locks / f"{file_name(unit.name)}.lock") as mine:
            if not mine or done(unit, path):
                continue
            began = time.perf_counter()
            result = unit.run()
            line = {"settings": unit.settings, "result": result, "seconds": round(time.perf_counter() - began, 1)}
            append(path, line)
            count += 1
            say(f"{unit.name}: {json.dumps({k: v for k, v in result.items() if isinstance(v, float)})}")
    return count


def file_name(name: str) -> str:
    """A file name for a unit."""
    return "".join(c if c.isalnum() or c in "=-." else "_" for c in name)


def append(path: Path, line: dict[str, Any]) -> None:
    """One write, so that processes sharing the file do not mix their lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (json.dumps(line) + "\n").encode())
    finally:
        os.close(handle)


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Whether this process holds the lock; a process that dies gives it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
