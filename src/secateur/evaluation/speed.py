"""Prefill and decode speed and peak memory of several models, measured in turns.

Each model lives in a process of its own and waits while another runs. A round gives every model one turn; the order
is reversed every round, so that a machine that grows warmer or busier does not favour one of them. The first round is
thrown away. Ratios are taken within a round, between neighbours in time; minimum, median and maximum over the rounds
are reported, never a best run.

Prefill: prompt tokens a second until the first next token. Decode: new tokens a second, one at a time through the
cache. Peak memory: on a CPU resident bytes above those of the process with all libraries loaded and no model (Linux),
on a GPU bytes allocated. Loading is not counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import secateur
from secateur.errors import SecateurError, UsageError
from secateur.evaluation.load import Place
from secateur.model import Model
from secateur.tokens.settings import TokenReduction


@dataclass(frozen=True, slots=True)
class SpeedSettings:
    """``batch`` sequences of ``prompt`` random tokens and ``new`` more, ``rounds`` times; 0 threads: torch decides."""

    batch: int = 1
    prompt: int = 512
    new: int = 64
    rounds: int = 5
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.batch, self.prompt, self.new, self.rounds) < 1 or self.threads < 0:
            raise UsageError(f"speed: {asdict(self)}: expected batch, prompt, new and rounds of at least 1")


class Worker:
    """A process that holds one model and answers one turn at a time."""

    def __init__(
        self,
        model: Model,
        place: Place,
        settings: SpeedSettings,
        vocabulary: int,
        reduction: TokenReduction | None = None,
    ) -> None:
        self.name = model.source
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "secateur.evaluation.speed_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=_environment(),
        )  # fmt: skip
        place = place.resolved()
        job = {**asdict(settings), "folder": str(model.folder), "vocab": vocabulary}
        job["reduction"] = None if reduction is None else reduction.to_json()
        self._send(job | {"device": place.device, "dtype": place.dtype, "fast": place.fast})

    def ready(self) -> dict[str, Any]:
        """Wait until the model is loaded."""
        return self._receive()

    def turn(self) -> dict[str, Any]:
        """Measure once."""
        self._send({})
        return self._receive()

    def _send(self, value: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process is dead: _receive says why
            self.process.stdin.write(json.dumps(value) + "\n")
            self.process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.log.seek(0)
            last = self.log.read().decode(errors="replace").strip().splitlines()[-1:]
            raise SecateurError(f"measuring {self.name} ended with code {code}: {''.join(last) or 'no message'}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise SecateurError(f"{self.name}: {reply['error']}", hint=reply.get("hint"))
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


def _environment() -> dict[str, str]:
    """The package is found from where it was imported, installed or not."""
    root = str(Path(secateur.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


def measure(
    models: Sequence[Model],
    place: Place,
    settings: SpeedSettings,
    *,
    reductions: Sequence[TokenReduction | None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Speed of each model, with ratios to the first (:func:`summary`). Raises SecateurError when one cannot run.

    ``reductions``: of each model's prompts; a speed then is that of the prompt's own tokens, removed ones included.
    """
    reductions = [None] * len(models) if reductions is None else reductions
    vocabulary = min(m.anatomy.sizes["v"] for m in models)
    total = (settings.rounds + 1) * len(models)
    done = 0
    rounds: list[list[dict[str, Any]]] = []
    if progress is not None:
        progress(0, total)  # the processes take a while to load
    with contextlib.ExitStack() as stack:
        pairs = zip(models, reductions, strict=True)
        workers = [stack.enter_context(Worker(m, place, settings, vocabulary, r)) for m, r in pairs]
        threads = [w.ready()["threads"] for w in workers]
        for order in _orders(len(models), settings.rounds + 1):
            turns: dict[int, dict[str, Any]] = {}
            for i in order:
                turns[i] = workers[i].turn()
                done += 1
                if progress is not None:
                    progress(done, total)
            rounds.append([turns[i] for i in range(len(models))])
    found = summary(rounds[1:], settings)
    return [{**entry, "threads": n} for entry, n in zip(found, threads, strict=True)]


def _orders(models: int, rounds: int) -> Iterator[list[int]]:
    for r in range(rounds):
        yield list(range(models))[:: -1 if r % 2 else 1]


def summary(rounds: Sequence[Sequence[dict[str, Any]]], settings: SpeedSettings) -> list[dict[str, Any]]:
    """[round][model] turns -> per model: min, median and max of tokens a second and of the ratio to model 0.

    A ratio above 1 is faster for speeds, and larger for memory. Memory is None where it cannot be measured.
    """
    tokens = {"prefill": settings.batch * settings.prompt, "decode": settings.batch * settings.new}
    out = []
    for i in range(len(rounds[0])):
        entry: dict[str, Any] = {}
        for name, n in tokens.items():
            rates = [[n / turn[f"{name}_s"] for turn in turns] for turns in rounds]
            entry[f"{name}_tokens_per_s"] = _spread([r[i] for r in rates])
            entry[f"{name}_ratio"] = _spread([r[i] / r[0] for r in rates])
        peaks = [[turn["peak_bytes"] for turn in turns] for turns in rounds]
        measured = all(p for turns in peaks for p in turns)
        entry["peak_bytes"] = _spread([p[i] for p in peaks]) if measured else None
        entry["peak_ratio"] = _spread([p[i] / p[0] for p in peaks]) if measured else None
        out.append(entry)
    return out


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


__all__ = ["SpeedSettings", "measure", "summary"]
