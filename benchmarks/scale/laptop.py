"""Nemotron-H 8 B on a laptop: the whole road under a memory limit, through the real command line.

    python -m benchmarks.scale.laptop [--limit-mib 6144] [--scale 1] [--kill] [--folder DIR] [--results FILE]

A checkpoint of the 8 B shape (about 16 GB, random weights with realistic layer statistics) is made in ``DIR`` shard by
shard and removed at the end. Then, each in a process of its own under ``ulimit -d`` (all private writable memory: heap,
anonymous mappings, stacks; the resident peak beside it counts libraries' pages too):

    secateur calibrate P --text T --out S --journal J          4,096 tokens
    secateur plan P --keep ... --stats S --out L               the 4 B shape
    secateur prune P --plan L --stats S --out C
    secateur repair C --parent P --text T --out R --journal J  least squares
    secateur eval R --parent P --text T --journal J --out E    block by block, for memory is too small

Each is compared with what the same work costs at least: block forwards of its tokens, and its bytes read and written
(benchmarks.scale.raw, measured right before it, pages dropped both times). With ``--kill`` every stage is also killed
with SIGKILL at a random moment, run again, and its result compared with the first one bit for bit.

Every stage is a unit: measured once, written down as a line of ``FILE``; started again after an interruption with the
same ``--folder``, the script goes on. The last line is a process that asks for as much as the limit and must fail.
Exit code 1 when a stage fails, a result differs, or memory goes over the limit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.tables import RESULTS
from benchmarks.common.units import Unit, read, run_all
from benchmarks.scale import shape
from benchmarks.scale.raw import forget
from benchmarks.stream_calibrate import MALLOC, limited

FILE = RESULTS / "scale-laptop.jsonl"
TIME_TARGET = 1.3


@dataclass(frozen=True)
class Road:
    """Where everything lies, and how much text is read."""

    work: Path
    samples: int
    length: int
    batch: int

    @property
    def parent(self) -> Path:
        return self.work / "parent"

    def stages(self) -> dict[str, tuple[list[str], Path]]:
        """Stage -> (command, what it makes)."""
        at, text = self.work, ["--text", str(self.work / "text.txt")]
        given = [*text, "--samples", str(self.samples), "--length", str(self.length), "--batch", str(self.batch)]
        sizes = shape.keep(json.loads((self.parent / "config.json").read_text()))
        wanted = ["--keep", ",".join(f"{k}={v}" for k, v in sizes.items()), "--stats", str(at / "stats.safetensors")]
        journal, parent = ["--journal", str(at / "journal")], str(self.parent)
        made = {
            "calibrate": (["calibrate", parent, *given, *journal], at / "stats.safetensors"),
            "plan": (["plan", parent, *wanted], at / "plan.json"),
            "prune": (
                ["prune", parent, "--plan", str(at / "plan.json"), "--stats", str(at / "stats.safetensors")],
                at / "child",
            ),
            "repair": (
                ["repair", str(at / "child"), "--parent", parent, "--method", "least-squares", *given, *journal],
                at / "repaired",
            ),
            "eval": (
                ["eval", str(at / "repaired"), "--parent", parent, *text, "--limit", f"{self.samples * self.length}B",
                 "--window", str(self.length), "--batch", str(self.batch), "--stream", *journal],
                at / "results.json",
            ),
        }  # fmt: skip
        base = [sys.executable, "-m", "secateur"]
        return {name: ([*base, *argv, "--out", str(out)], out) for name, (argv, out) in made.items()}

    def least(self, stage: str) -> dict[str, float]:
        """Seconds of the parts that no way of doing it could leave out."""
        tokens = ["--samples", str(self.samples), "--length", str(self.length), "--batch", str(self.batch)]
        models = {
            "calibrate": [self.parent],
            "plan": [],
            "prune": [self.parent],
            "repair": [self.parent, self.work / "child"],
            "eval": [self.parent, self.work / "repaired"],
        }[stage]
        found = {"read": sum(worker("read", m)["seconds"] for m in models), "write": 0.0, "forward": 0.0}
        if stage in ("calibrate", "repair", "eval"):
            found["forward"] = sum(worker("forward", m, *tokens)["seconds"] for m in models)
        if stage in ("prune", "repair"):
            nbytes = weights(self.parent if stage == "prune" else self.work / "child")
            if stage == "prune":
                nbytes = json.loads((self.work / "plan.json").read_text())["after"]["bytes"]
            found["write"] = worker("write", self.work, "--bytes", str(nbytes))["seconds"]
        return found


def worker(what: str, folder: Path, *more: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scale.raw", what, str(folder), *more]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **MALLOC})
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def weights(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.glob("*.safetensors"))


def digest(path: Path) -> str:
    """Of a file, or of all files of a folder with their names."""
    found = hashlib.sha256()
    for file in sorted(p for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file()):
        found.update(file.name.encode())
        with file.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def measured(road: Road, stage: str, limit: int, kill: bool) -> dict[str, Any]:
    """One stage: the least it can cost, then itself, and with ``kill`` again, killed on the way."""
    least = road.least(stage)
    command, out = road.stages()[stage]
    remove(out)
    remove(road.work / "journal")  # of an interrupted measurement: going on from it would be measured as speed
    forget(road.work)
    code, seconds, peak = limited(limit, command)
    if code:
        raise SystemExit(f"{stage} failed with exit code {code}")
    total = sum(least.values())
    result = {
        "seconds": seconds, "least": total, "peak_bytes": float(peak), "limit_bytes": float(limit),
        "ratio": seconds / total if total else 0.0, **{f"least_{k}": v for k, v in least.items()},
    }  # fmt: skip
    if kill:
        result |= killed(command, out, limit, seconds)
    return result


def killed(command: list[str], out: Path, limit: int, seconds: float) -> dict[str, Any]:
    """Kill it at a random moment, run it again, compare."""
    want, after = digest(out), seconds * random.SystemRandom().uniform(0.1, 0.9)
    remove(out)
    shell = ["sh", "-c", 'ulimit -d "$0" && exec "$@"', str(limit >> 10), *command]
    process = subprocess.Popen(
        shell, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **MALLOC}
    )
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    code, again, peak = limited(limit, command)
    return {
        "killed_after": after, "died": process.returncode == -signal.SIGKILL, "again_seconds": again,
        "same_bits": code == 0 and digest(out) == want, "again_peak_bytes": float(peak),
    }  # fmt: skip


def table(lines: list[dict[str, Any]]) -> str:
    rows = [
        "| stage | seconds | forwards + read + write | ratio | resident peak | limit (ulimit -d) | killed, run again |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for line in lines:
        r = line["result"]
        again = "-" if "same_bits" not in r else (
            f"after {r['killed_after']:.0f} s, again {r['again_seconds']:.0f} s, "
            + ("same bits" if r["same_bits"] else "DIFFERS")
        )  # fmt: skip
        parts = " + ".join(f"{r[f'least_{k}']:.1f}" for k in ("forward", "read", "write"))
        cells = (
            line["settings"]["stage"], f"{r['seconds']:.1f}", parts, f"{r['ratio']:.2f}" if r["least"] else "-",
            f"{r['peak_bytes'] / 2**20:.0f} MiB", f"{r['limit_bytes'] / 2**20:.0f} MiB", again,
        )  # fmt: skip
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def prepared(road: Road, scale: float) -> None:
    """The checkpoint, whole or not at all; in a process of its own, whose memory is not handed down."""
    if (road.parent / "config.json").exists():
        return
    part = road.work / "parent.part"
    remove(part)
    maker = multiprocessing.get_context("spawn").Process(target=shape.make, args=(part, road.work / "text.txt", scale))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise SystemExit("the parent could not be made")
    part.rename(road.parent)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit-mib", type=int, default=6144)
    parser.add_argument("--scale", type=float, default=1.0, help="of every width, for a quick look")
    parser.add_argument("--samples", type=int, default=8, help="windows")
    parser.add_argument("--length", type=int, default=512, help="tokens of a window")
    parser.add_argument("--batch", type=int, default=1, help="windows at a time")
    parser.add_argument("--kill", action="store_true", help="kill every stage once and run it again")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to work; needs twice the checkpoint and a half"
    )
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument("--keep", action="store_true", help="leave the checkpoints")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None, say: Callable[[str], None] = print) -> int:
    args = arguments(argv)
    work = args.folder or Path(tempfile.mkdtemp(prefix="scale-laptop-"))
    work.mkdir(parents=True, exist_ok=True)
    road, limit = Road(work, args.samples, args.length, args.batch), args.limit_mib << 20
    prepared(road, args.scale)
    size = weights(road.parent)
    common = {
        "scale": args.scale, "limit_mib": args.limit_mib, "samples": args.samples, "length": args.length,
        "batch": args.batch, "bytes": size,
    }  # fmt: skip
    units = [
        Unit({**common, "stage": stage}, lambda stage=stage: measured(road, stage, limit, args.kill))
        for stage in road.stages()
    ]
    run_all(units, args.results, work / "locks", say)
    lines = [line for line in read(args.results) if all(line["settings"].get(k) == v for k, v in common.items())]
    say(f"\ncheckpoint {size / 1e9:.2f} GB, limit {limit / 1e9:.2f} GB, {args.samples * args.length:,} tokens\n")
    say(table(lines))
    bites = limited(limit, [sys.executable, "-c", f"bytearray({limit})"], told=False)[0] != 0
    wrong = [line["settings"]["stage"] for line in lines if not line["result"].get("same_bits", True)]
    over = [line["settings"]["stage"] for line in lines if line["result"]["peak_bytes"] > limit]
    slow = [line["settings"]["stage"] for line in lines if line["result"]["ratio"] > TIME_TARGET]
    say(f"over {TIME_TARGET} times the least: {', '.join(slow) or 'none'}")
    for what, found in (("another result after a kill", wrong), ("over the limit", over)):
        if found:
            say(f"{what}: {', '.join(found)}")
    if not bites:
        say("the limit did not bite")
    if not args.keep:
        shutil.rmtree(work, ignore_errors=True)
    return 0 if bites and not wrong and not over and len(lines) == len(units) else 1


if __name__ == "__main__":
    sys.exit(main())
