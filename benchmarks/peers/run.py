"""Side by side with llm-compressor: same checkpoint, same calibration tokens, same machine, turn by turn.

    python benchmarks/peers/run.py --model DIR --text FILE --held-out FILE --peer PEER_PYTHON --work DIR

Each side is one command of its own, in its own environment, started from this small process (a child's peak memory
starts from its parent's). Wall and processor seconds and peak memory are of the whole command, start-up included: what
a user waits for. Losses are taken on the same held-out windows, both by the peer's interpreter where it can load the
result. One line per run goes to benchmarks/results/peers.jsonl; finished runs are skipped. ``table.py`` shows them.

The peer's environment (torch is pinned, or pip brings another one):

    python -m venv PEER; echo torch==2.13.0 > pin.txt
    PEER/bin/pip install -c pin.txt llmcompressor==0.14.0.1 transformers==5.17.0 compressed-tensors==0.19.0
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "peers.jsonl"
OURS, PEER = "secateur", "llm-compressor"
WINDOWS = """
import sys, numpy as np, secateur as sc
from secateur.calibration.text import windows_of
model, text, samples, length, seed, out = sys.argv[1:]
found = windows_of(sc.open(model), [text], samples=int(samples), length=int(length), seed=int(seed))
np.save(out, found.numpy())
"""


def command(method: str, args: argparse.Namespace, out: Path) -> list[str]:
    """Our command line for a method of :mod:`llmc`."""
    how = {
        "sparsegpt-50": ["sparsify", "--method", "sparsegpt", "--pattern", "50%"],
        "wanda-2:4": ["sparsify", "--method", "wanda", "--pattern", "2:4"],
    }
    group = method.rpartition("g")[2]
    verb, *options = how.get(method) or [
        *("quantize", "--method", "gptq", "--bits", "4", "--group", group),
        *("--search", "minmax"),  # as the peer does by default; ours searches ranges
    ]
    text = ["--text", args.text, "--samples", str(args.samples), "--length", str(args.length)]
    text += ["--batch", "4", "--sequential", "linear"]
    return [sys.executable, "-m", "secateur", verb, args.model, "--out", str(out), *options, *text]


def measured(argv: list[str], log: Path) -> dict[str, Any]:
    """Seconds, processor seconds and peak memory (MiB) of a command, from the kernel."""
    began = time.perf_counter()
    with log.open("wb") as said:
        child = subprocess.Popen(argv, stdout=said, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"})
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return {
        "code": child.returncode,
        "wall_s": time.perf_counter() - began,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
    }


def said(argv: list[str]) -> dict[str, Any]:
    """The last line of JSON that a command prints."""
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    tail = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
    return json.loads(lines[-1]) if lines else {"loss": None, "why": tail[-1][:200]}


def one(side: str, method: str, args: argparse.Namespace, tokens: Path, work: Path) -> dict[str, Any]:
    """Run one side once; its result stays in ``work`` only until its loss is known."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    for file in Path(args.model).glob("*.safetensors"):  # whoever comes first would read it from the disk
        subprocess.run(["cat", str(file)], stdout=subprocess.DEVNULL, check=True)
    peer = [args.peer, str(HERE / "llmc.py"), args.model, str(tokens / "fit.npy"), method, str(out)]
    found = measured(peer if side == PEER else command(method, args, out), work / f"{side}-{method}.log")
    if found["code"] == 0:
        found["bytes"] = sum(p.stat().st_size for p in out.rglob("*.safetensors"))
        for name, python in (("loss", args.peer), ("loss_here", sys.executable)):
            if args.judge and (name == "loss" or args.reload):
                found[name] = said([python, str(HERE / "loss.py"), str(out), str(tokens / "judge.npy")])
    return found


def note(line: dict[str, Any]) -> None:
    """Append a result."""
    with RESULTS.open("a") as results:
        results.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "text", "held-out", "peer"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--name", help="of the model in the table")
    parser.add_argument("--methods", nargs="+", default=["sparsegpt-50", "wanda-2:4", "gptq-4-g128"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--judge", type=int, default=64, help="held-out windows; 0: no loss (random weights)")
    parser.add_argument("--reload", action="store_true", help="also load each result in this environment")
    args = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    done = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for text, count, file in ((args.text, args.samples, "fit"), (args.held_out, args.judge, "judge")):
            argv = [args.model, text, str(count or 1), str(args.length), "0", str(work / f"{file}.npy")]
            subprocess.run([sys.executable, "-c", WINDOWS, *argv], check=True)
        key = {"model": args.name or Path(args.model).name, "method": "uncompressed", "side": OURS, "round": 0}
        if args.judge and not any(key.items() <= line.items() for line in done):
            parent = {"code": 0, "loss": said([args.peer, str(HERE / "loss.py"), args.model, str(work / "judge.npy")])}
            note(key | parent)
        for turn in range(args.rounds):
            for method in args.methods:
                for side in (OURS, PEER) if turn % 2 == 0 else (PEER, OURS):
                    key = {"model": args.name or Path(args.model).name, "method": method, "side": side, "round": turn}
                    if any(key.items() <= line.items() for line in done):
                        continue
                    line = key | {"samples": args.samples, "length": args.length} | one(side, method, args, work, work)
                    note(line)


if __name__ == "__main__":
    main()
