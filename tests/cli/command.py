"""Run the command line inside this process, and look at what it did to the disk."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.cli import run

DEADLINE_S = 120
"""Generous: each of these commands takes about a second."""


class Hangs(BaseException):
    """No ``except Exception`` on the way may swallow it."""


@dataclass(frozen=True, slots=True)
class Result:
    """Exit code and both streams of one command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def secateur(*argv: object) -> Result:
    """``secateur ARGV...``; an exception that escapes, or a command that hangs, fails the test."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", newline="")  # as Python opens the real one
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _deadline(argv):
        code = run([str(a) for a in argv])
    return Result(code, *(_text(stream) for stream in (out, err)))


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]


def done(*argv: object) -> Result:
    """A command that must succeed."""
    result = secateur(*argv)
    assert result.code == 0, result.err
    return result


def refused(*argv: object, says: str = "") -> str:
    """A command that must end with exit code 2 and a message that holds ``says``; returns the message."""
    result = secateur(*argv)
    assert result.code == 2, f"exit code {result.code}\n{result.out}\n{result.err}"
    assert is_message(result.err), result.err
    flat = " ".join(result.err.split())
    assert says in flat, flat
    return flat


def is_message(text: str) -> bool:
    """One paragraph that says something, can be written anywhere, and is no traceback."""
    paragraphs = [p for p in text.strip().split("\n\n") if p.strip()]
    text.encode("utf-8")
    return len(paragraphs) == 1 and 20 <= len(text) <= 4000 and "Traceback" not in text


@contextlib.contextmanager
def _deadline(argv: tuple[object, ...]) -> Iterator[None]:
    def expired(*_: object) -> None:
        raise Hangs(f"hangs: secateur {' '.join(map(str, argv))}")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tree(folder: Path) -> dict[str, str]:
    """Everything below ``folder``: relative path -> sha256 of a file, target of a link, or 'folder'."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found
