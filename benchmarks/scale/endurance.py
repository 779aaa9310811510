"""A long healing run that is hit by everything that hits long runs, beside one that is left alone.

    python -m benchmarks.scale.endurance [--minutes 60] [--folder DIR] [--results FILE]

The embedded trained hybrid is cut to 60% and healed from its cached teacher, twice at the same time with the same
settings: once undisturbed, once with faults injected as it goes, one after another:

    killed    SIGKILL at a drawn step                 -> started again, goes on
    nan       the loss of a step is NaN               -> exit code 2, names the last good state; goes on from it
    disk      files cannot grow while a state is saved (a full tmpfs where root may mount one, else a file-size limit)
                                                      -> exit code 2; with space again, goes on
    cache     a byte of a cached teacher shard flips  -> exit code 2, names the shard; removed as told, it is made again
    clock     the wall clock jumps both ways, an hour is slept through -> nothing to see

After each, what is left must be a state to go on from; at the end every step's loss, gradient norm and rate, and every
weight, must be those of the undisturbed run, bit for bit, and the memory of the process must be flat. Exit code 1
otherwise. Prints a table and appends one line to ``FILE``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common.tables import RESULTS
from benchmarks.common.tables import table as markdown
from benchmarks.common.units import append

FILE = RESULTS / "scale-endurance.jsonl"
KEYS = ("step", "tokens", "loss", "divergence", "ce", "lr", "gradient_norm")
ORDER = ("killed", "nan", "disk", "cache", "clock", "killed")
FLAT = 1.05
"""How much more memory the last tenth of a run may take than its second."""


@dataclass(frozen=True)
class Bench:
    """``options`` of distill, the same for both runs. Paths of the student, its teacher and the text.
    ``pause``: seconds between two looks at a running process."""

    student: Path
    teacher: Path
    text: Path
    work: Path
    options: tuple[str, ...]
    pause: float = 1.0

    def command(self, name: str, fault: str, step: int) -> list[str]:
        """The command line of run ``name``, with a fault in it."""
        place = self.work / name
        return [
            sys.executable, "-m", "benchmarks.scale.faults", fault, str(step), "distill", str(self.student),
            "--teacher", str(self.teacher), "--text", str(self.text), *self.options,
            "--out", str(place / "healed"), "--work", str(place / "state" / "run"), "--cache", str(place / "cache"),
        ]  # fmt: skip

    def start(self, name: str, fault: str = "none", step: int = 0) -> subprocess.Popen[bytes]:
        log = (self.work / f"{name}.log").open("ab")
        env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        return subprocess.Popen(self.command(name, fault, step), stdout=log, stderr=log, env=env)

    def metrics(self, name: str) -> list[dict[str, Any]]:
        """Steps written down so far, of the running or the finished run."""
        for path in (self.work / name / "healed", self.work / name / "state" / "run"):
            if (path / "metrics.jsonl").exists():
                lines = (path / "metrics.jsonl").read_text().splitlines()
                return [line for line in map(_parsed, lines) if line is not None and line["step"]]
        return []

    def steps(self, name: str) -> int:
        """How many steps are written down."""
        path = self.work / name / "state" / "run" / "metrics.jsonl"
        try:
            return path.read_bytes().count(b"\n")
        except OSError:
            return 0

    def follow(
        self, process: subprocess.Popen[bytes], watch: Watch, name: str = "hit", stop: Callable[[], bool] | None = None
    ) -> int:
        """Wait for the end, or kill when ``stop`` says so; returns the exit code. Memory is watched from the third step
        on: before it models are loaded."""
        before: int | None = None
        while process.poll() is None:
            now = self.steps(name)
            before = now if before is None or now < before else before
            if now >= before + 3:
                watch.look(process.pid)
            if stop is not None and stop():
                process.send_signal(signal.SIGKILL)
                process.wait()
                break
            time.sleep(self.pause)
        return int(process.returncode)


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(line)
        return found
    except ValueError:
        return None


@dataclass
class Watch:
    """Resident bytes of a process over its life, one number a moment."""

    seen: list[int] = field(default_factory=list)

    def look(self, pid: int) -> None:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return
        self.seen.append(pages * os.sysconf("SC_PAGE_SIZE"))

    @property
    def growth(self) -> float | None:
        """Most of the last tenth over most of the second; None for lives too short to say."""
        tenth = len(self.seen) // 10
        return max(self.seen[-tenth:]) / max(self.seen[tenth : 2 * tenth]) if tenth >= 3 else None


def disturbed(bench: Bench, steps: int, seed: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The run that is hit, from its first step to its last; one entry per fault and one for the end."""
    draw, found = random.Random(seed), []
    state = bench.work / "hit" / "state"
    state.mkdir(parents=True)
    small = _mounted(state, 64 << 20 if steps < 1000 else 512 << 20)
    try:
        for i, fault in enumerate(ORDER):
            low, high = (i * steps) // (len(ORDER) + 1), ((i + 1) * steps) // (len(ORDER) + 1)
            at = draw.randint(low + 1, max(low + 1, high))
            entry = hit(bench, fault, at, small, steps)
            found.append(entry)
            say(json.dumps(entry))
        watch, began = Watch(), time.perf_counter()
        code = bench.follow(bench.start("hit"), watch)
        found.append({"fault": "none", "code": code, "growth": watch.growth, "seconds": time.perf_counter() - began})
        return found
    finally:
        if small:
            shutil.rmtree(bench.work / "hit" / "state" / "run", ignore_errors=True)
            subprocess.run(["umount", str(state)], check=False)


def hit(bench: Bench, fault: str, at: int, small: bool, steps: int) -> dict[str, Any]:
    """One fault at step ``at``, and what became of it."""
    watch, began, ballast = Watch(), time.perf_counter(), bench.work / "hit" / "state" / "ballast"

    def reached() -> bool:
        return bench.steps("hit") >= at

    if fault == "killed":
        code, wanted = bench.follow(bench.start("hit"), watch, stop=reached), -signal.SIGKILL
    elif fault == "cache":
        damaged = damage(bench.work / "hit" / "cache", at, bench)
        code, wanted = bench.follow(bench.start("hit"), watch), 2
        for path in damaged:
            path.unlink()
    elif fault == "disk" and small:
        code, wanted = bench.follow(bench.start("hit"), watch, stop=lambda: reached() and fill(ballast)), 2
        ballast.unlink(missing_ok=True)
    elif fault == "clock":
        late = bench.start("hit", "clock", at)
        code, wanted = bench.follow(late, watch, stop=lambda: bench.steps("hit") >= at + 3), -signal.SIGKILL
    else:
        code, wanted = bench.follow(bench.start("hit", fault, at), watch), 2
    told = (bench.work / "hit.log").read_text(errors="replace")
    return {
        "fault": fault, "step": at, "code": code, "as_wanted": code == wanted, "growth": watch.growth,
        "clear": code != 2 or ("error:" in told[-4000:] and "Traceback" not in told),
        "state": any((bench.work / "hit" / "state" / "run").glob("step-*")), "seconds": time.perf_counter() - began,
    }  # fmt: skip


def damage(cache: Path, at: int, bench: Bench) -> list[Path]:
    """Flip one byte of the shard that is read next behind step ``at``; returns the files the message names."""
    from secateur.train.cache import SHARD

    shards = sorted(cache.glob("teacher-*.safetensors"))
    batch = int(bench.options[bench.options.index("--batch") + 1])
    path = shards[((at * batch) // SHARD + 1) % len(shards)]
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    return [path, path.with_suffix(".sha256")]


def fill(ballast: Path) -> bool:
    """Take all the space there is. Returns False: the process is not to be killed, it will notice."""
    if not ballast.exists():
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
            except OSError:
                pass
    return False


def _mounted(place: Path, nbytes: int) -> bool:
    """Whether ``place`` could be made a small file system of its own."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={nbytes}", "tmpfs", str(place)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def compared(bench: Bench) -> dict[str, Any]:
    """Curves and weights of the two runs."""
    from secateur.checkpoint import TensorStore

    curves = [[[line[k] for k in KEYS] for line in bench.metrics(name)] for name in ("hit", "alone")]
    stores = [TensorStore.open(bench.work / name / "healed") for name in ("hit", "alone")]
    same = [n for n in stores[1].tensors if bool((stores[0].read(n) == stores[1].read(n)).all())]
    return {
        "steps": len(curves[1]), "same_curve": curves[0] == curves[1] and bool(curves[1]),
        "same_weights": len(same) == len(stores[1].tensors) and stores[0].tensors.keys() == stores[1].tensors.keys(),
    }  # fmt: skip


def prepared(work: Path) -> tuple[Path, Path, Path]:
    """(student, teacher, text): the embedded hybrid, cut by magnitude to 60%."""
    import secateur as sc
    from secateur.demo.unpack import DATA, unpack

    if not (work / "child").exists():
        unpack(work / "demo", "quick")
        with sc.open(work / "demo" / "parent") as parent:
            sc.prune(parent, sc.plan(parent, params="60%"), work / "child")
    return work / "child", work / "demo" / "parent", DATA / "text" / "training"


def rate(student: Path, teacher: Path, text: Path, work: Path, options: tuple[str, ...]) -> float:
    """Tokens per second of a few steps, with another run beside it."""
    probe = Bench(student, teacher, text, work / "probe", ("--tokens", "8k", *options))
    probe.work.mkdir()
    processes = [probe.start(name) for name in ("a", "b")]
    if any(p.wait() for p in processes):
        raise SystemExit(f"the probe failed: {probe.work}/a.log")
    lines = probe.metrics("a")[1:]
    return sum(line["tokens_per_second"] for line in lines) / len(lines)


def run(bench: Bench, steps: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Both runs side by side; the whole result."""
    alone, began = bench.start("alone"), time.perf_counter()
    try:
        faults = disturbed(bench, steps, seed, say)
        code = alone.wait()
    finally:
        if alone.poll() is None:
            alone.kill()
    grown = [f["growth"] for f in faults if f["growth"] is not None]
    ends = {"alone_code": code, "hit_code": faults[-1]["code"]}
    result = {"faults": faults, **ends, "seconds": time.perf_counter() - began, "growth": max(grown, default=None)}
    return result | (compared(bench) if not any(ends.values()) else {"same_curve": False, "same_weights": False})


def verdict(result: dict[str, Any]) -> list[str]:
    """What is not as it must be."""
    wrong = [
        f"{f['fault']} at step {f['step']}: exit code {f['code']}" for f in result["faults"][:-1] if not f["as_wanted"]
    ]
    wrong += [f"{f['fault']}: no clear message" for f in result["faults"][:-1] if not f["clear"]]
    wrong += [what for what in ("same_curve", "same_weights") if not result[what]]
    if result["growth"] is not None and result["growth"] > FLAT:
        wrong.append(f"memory grew {result['growth']:.2f} times")
    return wrong


def table(line: dict[str, Any]) -> str:
    """A run in Markdown, and in a sentence how it ended."""
    result, rows = line["result"], []
    for f in result["faults"]:
        grown = "-" if f["growth"] is None else f"{f['growth']:.3f}"
        fine = f.get("as_wanted", not f["code"]) and f.get("clear", True)
        rows.append([f["fault"], str(f.get("step", "end")), str(f["code"]), "yes" if fine else "NO", grown])
    head = ["fault", "at step", "exit code", "as it must be", "memory, last over second tenth"]
    wrong = verdict(result)
    end = "; ".join(wrong) if wrong else "curve and weights are those of the undisturbed run"
    size = f"{result.get('steps', 0):,} steps in {result['seconds'] / 60:.0f} minutes"
    return f"{markdown(head, rows)}\n\n{size}: {end}."


def main(argv: list[str] | None = None, say: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--results", type=Path, default=FILE)
    args = parser.parse_args(argv)
    work = Path(tempfile.mkdtemp(prefix="endurance-", dir=args.folder))
    options = ("--length", "128", "--batch", "8", "--micro-batch", "4", "--top-k", "64", "--repeat", "--lr", "1e-3")
    try:
        models = prepared(work)
        tokens = max(64 * 8 * 128, int(rate(*models, work, options) * 60 * args.minutes))
        steps = tokens // (8 * 128)
        bench = Bench(*models, work, ("--tokens", str(tokens), "--save-every", str(max(2, steps // 60)), *options))
        say(f"{steps} steps of {8 * 128} tokens")
        result = run(bench, steps, args.seed, say)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    line = {"settings": {"minutes": args.minutes, "seed": args.seed}, "result": result}
    append(args.results, line)
    say(table(line))
    return 1 if verdict(result) else 0


if __name__ == "__main__":
    sys.exit(main())
