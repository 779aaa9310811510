"""Run by test_crashes.py in a process of its own: forks writers, kills them, and looks at what they left.

Usage: python -m tests.checkpoint.crash_driver FOLDER calls|timed new|overwrite|no-exchange SEED
Prints one line of JSON for each kill. Forking instead of starting Python anew keeps 80 kills within seconds.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from secateur.checkpoint import TensorSpec, TensorStore, publish, write_json, write_tensors
from secateur.checkpoint import publish as publish_function
from tests.checkpoint import tiny

KILLS = 20
COUNTED = ("open", "write", "fsync", "mkdir", "rename", "unlink", "rmdir")
publish_module = sys.modules[publish_function.__module__]


def make_parent(folder: Path) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    made = {f"w{at}": torch.randn(1 << 18, generator=generator) for at in range(6)}
    save(folder, made)
    return made


def save(folder: Path, made: dict[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True)
    specs = [TensorSpec(name, "F32", tuple(tensor.shape)) for name, tensor in made.items()]
    write_tensors(folder, specs, lambda spec: made[spec.name])
    write_json(folder / "config.json", {"model_type": "tiny"})


def job(parent: Path, destination: Path, overwrite: bool) -> None:
    """What the product does: stream a parent into a published child of three shards."""
    store = TensorStore.open(parent)
    specs = [TensorSpec(info.name, info.dtype, info.shape) for info in store.tensors.values()]
    with publish(destination, overwrite=overwrite) as staging:
        write_tensors(staging, specs, lambda spec: store.read(spec.name), shard_bytes=2 << 20)
        write_json(staging / "config.json", {"model_type": "tiny"})


def count_calls(limit: int) -> list[int]:
    """Count calls that change the disk; the process kills itself before call number ``limit``."""
    calls = [0]

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if calls[0] == limit:
                os.kill(os.getpid(), signal.SIGKILL)
            calls[0] += 1
            return real(*args, **kwargs)

        return counted

    for name in COUNTED:
        setattr(os, name, wrap(getattr(os, name)))
    publish_module._exchange = wrap(publish_module._exchange)  # type: ignore[attr-defined]
    return calls


def forked(body: Callable[[], int]) -> int:
    """Pid of a child that runs ``body`` and exits with its result (below 256)."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            code = body()
        finally:
            os._exit(code)
    return pid


def run_counting(limit: int, arguments: tuple[Path, Path, bool]) -> int:
    def body() -> int:
        calls = count_calls(limit)
        job(*arguments)
        return calls[0]

    return os.waitpid(forked(body), 0)[1]


def run_timed(delay: float, arguments: tuple[Path, Path, bool]) -> int:
    def body() -> int:
        job(*arguments)
        return 0

    pid = forked(body)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def state(destination: Path, old: dict[str, torch.Tensor] | None, new: dict[str, torch.Tensor]) -> str:
    if not os.path.lexists(destination):
        return "absent"
    if tiny.holds(destination, new):
        return "new"
    return "old" if old and tiny.holds(destination, old) else "broken"


def main(folder: Path, how: str, mode: str, seed: int) -> None:
    if mode == "no-exchange":
        publish_module._exchange = lambda one, other: False  # type: ignore[attr-defined]
    new = make_parent(folder / "parent")
    old = None if mode == "new" else {"w": torch.arange(1 << 18) + 0.0}
    before = tiny.fingerprint(folder / "parent")
    destination = folder / "place" / "child"
    arguments = (folder / "parent", destination, mode != "new")

    def reset() -> None:
        shutil.rmtree(folder / "place", ignore_errors=True)
        if old:
            save(destination, old)

    reset()
    start = time.perf_counter()
    total = os.waitstatus_to_exitcode(run_counting(-1, arguments))
    whole = time.perf_counter() - start
    rng = random.Random(seed)
    points = rng.sample(range(total), KILLS) if how == "calls" else [rng.uniform(0, whole) for _ in range(KILLS)]
    for point in points:
        reset()
        status = (run_counting if how == "calls" else run_timed)(point, arguments)  # type: ignore[operator]
        left = state(destination, old, new)
        rest = [path.name for path in destination.parent.glob(".*")] if destination.parent.exists() else []
        job(folder / "parent", destination, overwrite=True)
        print(
            json.dumps(
                {
                    "point": point,
                    "of": total if how == "calls" else whole,
                    "killed": os.WIFSIGNALED(status),
                    "state": left,
                    "hidden": rest,
                    "then": state(destination, old, new),
                    "hidden_then": [path.name for path in destination.parent.glob(".*")],
                    "parent_untouched": tiny.fingerprint(folder / "parent") == before,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
