"""Killed, interrupted, or out of space: the parent is untouched and the destination is whole or absent."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

import secateur as sc
from secateur.cli import run
from tests.thorough import trials

from .command import done, refused, tree
from .models import build

KEEP = "hidden=448,ffn=1536"
BIG = dict(
    vocab_size=2048, hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8,
    num_key_value_heads=4, head_dim=64,
)  # fmt: skip

# Processes are forked from a server that has imported everything once: starting one takes milliseconds, not seconds.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.cli.test_interrupted", "secateur.pruning.run", "transformers.models.llama"])


@dataclass(frozen=True, slots=True)
class Trap:
    """Sends ``signal`` to its own process just after the ``count``-th call of a function of a module."""

    function: str
    count: int = 1
    signal: int = signal.SIGKILL

    def set(self) -> None:
        module, _, name = self.function.rpartition(".")
        plain, calls = getattr(sys.modules[module], name), itertools.count(1)

        def trapped(*args: object, **kwargs: object) -> object:
            result = plain(*args, **kwargs)
            if next(calls) == self.count:
                os.kill(os.getpid(), self.signal)
            return result

        setattr(sys.modules[module], name, trapped)


@dataclass(frozen=True, slots=True)
class Scene:
    """A parent of 120 MB in three shards, and the child that an undisturbed run makes of it."""

    place: Path
    parent: Path
    whole: dict[str, str]
    before: dict[str, str]
    seconds: float

    @property
    def child(self) -> Path:
        return self.place / "child"

    def start(self, *options: str, trap: Trap | None = None) -> BaseProcess:
        argv = ["prune", str(self.parent), "--keep", KEEP, "--score", "first", "--out", str(self.child), *options]
        process = _FORKS.Process(target=_secateur, args=(argv, str(self.place.parent / "log"), trap))
        process.start()
        return process

    @property
    def log(self) -> str:
        return (self.place.parent / "log").read_text()

    def parent_is_untouched(self) -> bool:
        return tree(self.parent) == self.before

    def names(self) -> set[str]:
        return {p.name for p in self.place.iterdir()}

    def is_staging(self) -> bool:
        """Whether a run died with its result in the making."""
        return any(self.place.glob(".secateur-staging-*"))


def _secateur(argv: list[str], log: str, trap: Trap | None) -> None:
    """In the forked process: the command line, with both streams in a file."""
    with open(log, "w") as file:  # noqa: PTH123
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    # as at a terminal: a test run started in the background of a script would hand down "ignore"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tempfile.tempdir = str(Path(log).parent)
    if trap is not None:
        trap.set()
    sys.exit(run(argv))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    place = tmp_path_factory.mktemp("interrupted") / "place"
    place.mkdir()
    parent = build("llama", place / "parent", dtype=torch.bfloat16, shard="50MB", over=BIG)
    plain = Scene(place, parent, {}, tree(parent), 0)
    for _ in range(2):  # the first run also starts the server
        if plain.child.exists():
            _remove(plain.child)
        started = time.perf_counter()
        process = plain.start()
        process.join()
        seconds = time.perf_counter() - started
        assert process.exitcode == 0, plain.log
    whole = tree(plain.child)
    _remove(plain.child)
    yield Scene(place, parent, whole, plain.before, seconds)


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_kill_at_many_points(scene: Scene) -> None:
    """SIGKILL: half of the times spread over the running time, half over the tensors as they are written.

    What a dead run leaves is swept by the next one.
    """
    half, draw, seconds = trials(4, 10), random.Random(20), scene.seconds
    tensors = len(sc.open(scene.parent).weights.tensors)
    killed = caught = 0
    for _ in range(100):
        started, point = time.perf_counter(), (killed % half + draw.random()) / half
        if killed < half:
            process = scene.start()
            process.join(seconds * point)
        else:
            process = scene.start(trap=Trap(EACH_TENSOR, 1 + int(point * tensors)))
            process.join()
        process.kill()
        process.join()
        if process.exitcode == 0:  # faster than the run that was measured
            seconds = min(seconds, time.perf_counter() - started)
        killed += process.exitcode == -signal.SIGKILL
        caught += killed > half and scene.is_staging()
        if scene.child.exists():
            assert tree(scene.child) == scene.whole
            sc.open(scene.child)
            _remove(scene.child)
        assert scene.parent_is_untouched()
        assert sum(name.startswith(".secateur-") for name in scene.names()) <= 1
        if killed == 2 * half:
            break
    assert (killed, caught) == (2 * half, half), f"not into the run: {killed}, {caught} while writing"
    process = scene.start()
    process.join()
    assert process.exitcode == 0, scene.log
    assert tree(scene.child) == scene.whole
    assert scene.names() == {"parent", "child"}
    _remove(scene.child)


EACH_TENSOR = "secateur.checkpoint.writer._pieces"
TRAPS = {
    "secateur.pruning.run.require_space": False,
    "secateur.pruning.run.write_tensors": False,
    "secateur.pruning.run.copy_passengers": False,
    "secateur.pruning.run.record": False,
    "secateur.checkpoint.publish.sync_tree": False,
    "secateur.checkpoint.publish._put_in_place": True,
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("trap", TRAPS)
def test_kill_between_two_steps(trap: str, overwrite: bool, scene: Scene) -> None:
    """Killed just after a step. With --overwrite the old checkpoint stays until the new one takes its place."""
    old = {}
    if overwrite:
        done("prune", scene.parent, "--keep", "hidden=64,ffn=64,layers=1", "--score", "first", "--out", scene.child)
        old = tree(scene.child)
    process = scene.start(*(["--overwrite"] if overwrite else []), trap=Trap(trap))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    found = tree(scene.child) if scene.child.exists() else {}
    assert found == (scene.whole if TRAPS[trap] else old)
    assert scene.parent_is_untouched()
    done(
        "prune",
        scene.parent,
        "--keep",
        "hidden=64,ffn=64,layers=1",
        "--score",
        "first",
        "--out",
        scene.child,
        "--overwrite",
    )
    assert scene.names() == {"parent", "child"}
    _remove(scene.child)


def test_temporary_folders_of_the_dead_are_swept(scene: Scene) -> None:
    """By the next run, like staging folders."""

    def temporary() -> list[str]:
        return [path.name for path in scene.place.parent.glob("*secateur-*")]

    process = scene.start(trap=Trap("secateur.pruning.run._prepare"))
    process.join()
    assert process.exitcode == -signal.SIGKILL and len(temporary()) == 1
    process = scene.start()
    process.join()
    assert process.exitcode == 0 and temporary() == [], scene.log
    _remove(scene.child)


@pytest.mark.parametrize(
    "trap",
    [
        Trap("secateur.pruning.run._prepare"),
        Trap(EACH_TENSOR, 1),
        Trap(EACH_TENSOR, 30),
        Trap("secateur.pruning.run.record"),
    ],
)
def test_interrupt(trap: Trap, scene: Scene) -> None:
    """Ctrl-C: exit code 130, a word of comfort, and nothing left."""
    process = scene.start(trap=replace(trap, signal=signal.SIGINT))
    process.join()
    assert process.exitcode == 130, (process.exitcode, scene.log)
    assert "interrupted; nothing was left half-written" in scene.log and "Traceback" not in scene.log
    assert scene.names() == {"parent"}
    assert scene.parent_is_untouched()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many MB."""
    mounted: list[Path] = []

    def mount(megabytes: int) -> Path:
        place = tmp_path / f"disk{megabytes}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as e:
            pytest.skip(f"NOT TESTED: a small file system cannot be mounted here: {e}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_too_small_is_refused_before_any_work(scene: Scene, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(16)
    planned = done("plan", scene.parent, "--keep", KEEP, "--json").json["after"]["bytes"]
    message = refused("prune", scene.parent, "--keep", KEEP, "--out", disk / "a" / "child", says="bytes needed")
    needed = int(message.split(" bytes needed")[0].split()[-1])
    assert planned <= needed <= planned + (4 << 20)
    assert "bytes free" in message and str(disk) in message
    assert list(disk.iterdir()) == []
    done("prune", scene.parent, "--keep", "hidden=64,ffn=64,layers=1", "--out", disk / "small")


@pytest.mark.parametrize("megabytes", [1, 15, 30])
def test_a_disk_that_fills_while_writing(
    megabytes: int, scene: Scene, small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else took the space after it was checked."""
    disk = small_disk(megabytes)
    monkeypatch.setattr("secateur.pruning.run.require_space", lambda path, nbytes: None)
    message = refused("prune", scene.parent, "--keep", KEEP, "--shard-size", "20MB", "--out", disk / "child")
    assert "no space left on the device" in message and "hint: Free some space" in message
    assert list(disk.iterdir()) == []
    assert scene.parent_is_untouched()
