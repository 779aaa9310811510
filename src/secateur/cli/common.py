"""What the verbs share: printing, parsing of small option languages, one place where errors become exit code 2."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from secateur.errors import UsageError

out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout and nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def parse_keep(text: str | None) -> dict[str, int]:
    """``hidden=3072,ffn=12288`` -> dict. Raises UsageError naming the piece that is wrong."""
    keep: dict[str, int] = {}
    for item in filter(None, (text or "").replace(" ", "").split(",")):
        name, eq, value = item.partition("=")
        if not eq or not re.fullmatch(r"\d{1,12}", value):
            raise UsageError(f"--keep: {item!r} is not of the form axis=size, as in hidden=3072,ffn=12288")
        if name in keep:
            raise UsageError(f"--keep: axis {name!r} is given twice")
        keep[name] = int(value)
    return keep


def parse_indices(text: str, option: str) -> list[int]:
    """``3,7-9`` -> [3, 7, 8, 9]."""
    found: list[int] = []
    for item in filter(None, text.replace(" ", "").split(",")):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", item)
        if not match or (match.group(2) and int(match.group(2)) < int(match.group(1))):
            raise UsageError(f"{option}: {item!r} is no layer index or range; write 3,7-9")
        found.extend(range(int(match.group(1)), int(match.group(2) or match.group(1)) + 1))
    return sorted(set(found))


def parse_size(text: str) -> int:
    """``5GB`` -> bytes."""
    from secateur.pruning.budget import parse_amount

    return parse_amount(text, 0, "bytes")


def human_bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:,.2f} {unit}"
        n /= 1000
    raise AssertionError


def human_count(n: float) -> str:
    for unit in ("", " k", " M", " B"):
        if n < 1000 or unit == " B":
            return f"{n:,.0f}" if not unit else f"{n:,.3f}{unit}"
        n /= 1000
    raise AssertionError


@contextmanager
def byte_progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with speed and time left, on stderr; silent when stderr is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def step_progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar over steps with time taken and left; one plain line per tenth where stderr is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        task = bar.add_task(label, total=None)
        tenth = 0

        def advance(done: int, total: int) -> None:
            nonlocal tenth
            bar.update(task, completed=done, total=total)
            if not err.is_terminal and 10 * done // max(1, total) > tenth:
                tenth = 10 * done // total
                err.print(f"{label}: {done}/{total}")

        yield advance
