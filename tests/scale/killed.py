"""Runs of the command line in forked processes that are killed with SIGKILL at a chosen place."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from secateur.cli import run

# forked from a server that has imported everything once: starting one takes milliseconds, not seconds
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "tests.scale.killed", "secateur.pruning.repair.run", "secateur.evaluation.results", "secateur.train.run",
        "secateur.importance.measure", "secateur.pruning.run", "transformers.models.nemotron_h",
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trap:
    """Kills its own process when a function (or ``Class.method``) of a module has been called ``count`` times; with
    ``count`` 0 only counts. ``after``: once the call is done, else before it."""

    module: str
    name: str
    count: int = 0
    after: bool = True

    def set(self, calls: Path) -> None:
        owner = sys.modules[self.module]
        *path, name = self.name.split(".")
        for step in path:
            owner = getattr(owner, step)
        plain, numbers = getattr(owner, name), itertools.count(1)

        def trapped(*args: object, **kwargs: object) -> object:
            number = next(numbers)
            calls.write_text(str(number))
            if number == self.count and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = plain(*args, **kwargs)
            if number == self.count:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, trapped)


@dataclass(frozen=True, slots=True)
class Place:
    """Where commands run: ``folder`` for their logs and counts."""

    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def calls(self) -> int:
        """How often the trapped function was called in the last run."""
        path = self.folder / "calls"
        return int(path.read_text() or 0) if path.exists() else 0

    def start(self, argv: list[str], trap: Trap | None = None, **environment: str) -> BaseProcess:
        (self.folder / "calls").unlink(missing_ok=True)
        process = _FORKS.Process(target=_secateur, args=(argv, self.folder, trap, environment))
        process.start()
        return process

    def done(self, argv: list[str], trap: Trap | None = None) -> None:
        """A run that comes to its end."""
        process = self.start(argv, trap)
        process.join()
        assert process.exitcode == 0, self.log

    def killed(self, argv: list[str], trap: Trap) -> None:
        """A run that is killed where ``trap`` says."""
        process = self.start(argv, trap)
        process.join()
        assert process.exitcode == -signal.SIGKILL, self.log


def _secateur(argv: list[str], folder: Path, trap: Trap | None, environment: dict[str, str]) -> None:
    os.environ |= environment
    from secateur.calibration import journal

    journal.EVERY_SECONDS = 0.0  # a state after every layer; users get one a minute
    with (folder / "log").open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    if trap is not None:
        trap.set(folder / "calls")
    sys.exit(run(argv))
