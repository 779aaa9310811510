"""Cut an 8 B-shaped Nemotron-H checkpoint to the 4 B shape, against a plain copy of the same bytes.

    python benchmarks/stream_cut.py [--score first|random] [--pairs 3] [--scale 1.0] [--folder DIR]

Makes about 16 GB of random bf16 weights shard by shard (removed afterwards), then alternates in one run:

* copy: read every byte of the parent, write as many bytes as the child has, fsync;
* cut: `secateur prune` in a process of its own, with hashes of the parent, the audit and the atomic publish.

The files' pages are dropped from the cache before each run, so both read the disk. Prints a markdown table with wall
times, their ratio per pair and the peak resident memory of the cut. Exit code 1 if memory or the median ratio miss
their target.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy
from secateur.checkpoint import TensorSpec, write_json, write_tensors

PATTERN = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
CONFIG = {
    "architectures": ["NemotronHForCausalLM"],
    "model_type": "nemotron_h",
    "vocab_size": 131072,
    "hidden_size": 4096,
    "hybrid_override_pattern": PATTERN,
    "num_hidden_layers": len(PATTERN),
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 21504,
    "mamba_num_heads": 128,
    "mamba_head_dim": 64,
    "n_groups": 8,
    "ssm_state_size": 128,
    "conv_kernel": 4,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
KEEP = "hidden=3072,ffn=12288,ssm_heads=112"
MEMORY_TARGET, TIME_TARGET = 2 << 30, 1.5
CHUNK = 16 << 20


def make_parent(folder: Path, scale: float) -> None:
    """Random bf16 weights with standard deviation 0.02, drawn from one pool of normals at changing offsets."""
    config = dict(CONFIG)
    layers = max(2, round(len(PATTERN) * scale))
    config |= {"hybrid_override_pattern": PATTERN[:layers], "num_hidden_layers": layers}
    anatomy = Anatomy(config)
    pool = (torch.randn(1 << 27) * 0.02).bfloat16()
    offset = 0

    def produce(spec: TensorSpec) -> torch.Tensor:
        nonlocal offset
        n = 1
        for s in spec.shape:
            n *= s
        out = torch.empty(n, dtype=torch.bfloat16)
        for start in range(0, n, len(pool)):
            stop = min(n, start + len(pool))
            offset = (offset + 7919) % (len(pool) - 1)
            out[start:stop] = torch.roll(pool, offset)[: stop - start]
        return out.view(spec.shape)

    folder.mkdir(parents=True)
    specs = [TensorSpec(d.name, "BF16", lo.shape(d.layout, anatomy.sizes)) for d in anatomy.tensors.values()]
    write_tensors(folder, specs, produce, shard_bytes=5 * 10**9)
    write_json(folder / "config.json", config)


def forget(folder: Path) -> None:
    """Write back and drop the folder's pages, so that the next reader meets the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def plain_copy(parent: Path, child_bytes: int, out: Path) -> float:
    """Seconds to read the parent's bytes and write ``child_bytes`` of them."""
    buffer, written = bytearray(CHUNK), 0
    start = time.perf_counter()
    with out.open("wb", buffering=0) as target:
        for path in sorted(parent.glob("*.safetensors")):
            with path.open("rb", buffering=0) as source:
                while n := source.readinto(buffer):
                    take = min(n, child_bytes - written)
                    if take > 0:
                        target.write(memoryview(buffer)[:take])
                        written += take
        os.fsync(target.fileno())
    return time.perf_counter() - start


def cut(parent: Path, out: Path, score: str) -> tuple[float, int]:
    """(seconds, peak resident bytes) of the command line in its own process."""
    command = [
        sys.executable,
        "-m",
        "secateur",
        "prune",
        str(parent),
        "--keep",
        KEEP,
        "--score",
        score,
        "--out",
        str(out),
    ]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"the cut failed: {' '.join(command)}")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--score", default="first", choices=["first", "random"])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the layers, for a quick look")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; needs about 35 GB free")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="stream-cut-", dir=args.folder))
    try:
        # in a process of its own: a child's peak memory starts from that of the process that starts it
        maker = multiprocessing.get_context("spawn").Process(target=make_parent, args=(work / "parent", args.scale))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit("the parent could not be made")
        anatomy = Anatomy(json.loads((work / "parent" / "config.json").read_text()))
        parent_bytes = sum(p.stat().st_size for p in (work / "parent").glob("*.safetensors"))
        rows, peak, child_bytes = [], 0, 0
        for pair in range(args.pairs + 1):  # the first pair warms up and tells the child's size
            forget(work)
            seconds, memory = cut(work / "parent", work / "child", args.score)
            child_bytes = sum(p.stat().st_size for p in (work / "child").glob("*.safetensors"))
            child = json.loads((work / "child" / "secateur.json").read_text())["cost"]["after"]["parameters"]
            shutil.rmtree(work / "child")
            forget(work)
            copied = plain_copy(work / "parent", child_bytes, work / "copy")
            (work / "copy").unlink()
            if pair:
                rows.append((seconds, copied))
                peak = max(peak, memory)
            print(
                f"pair {pair}: cut {seconds:.1f} s, copy {copied:.1f} s, peak {memory / 2**20:.0f} MiB", file=sys.stderr
            )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    ratios = [a / b for a, b in rows]
    cells = (
        f"{anatomy.count() / 1e9:.3f} B, {parent_bytes / 1e9:.2f} GB",
        f"{child / 1e9:.3f} B, {child_bytes / 1e9:.2f} GB",
        args.score,
        f"{statistics.median(b for _, b in rows):.1f} s",
        f"{statistics.median(a for a, _ in rows):.1f} s",
        f"{min(ratios):.2f} / **{statistics.median(ratios):.2f}** / {max(ratios):.2f}",
        f"{peak / 2**20:.0f} MiB",
    )
    print("| parent | child | score | plain copy | cut | ratio (min / median / max) | peak memory |")
    print("|---|---|---|---|---|---|---|")
    print(f"| {' | '.join(cells)} |")
    return 0 if peak < MEMORY_TARGET and statistics.median(ratios) <= TIME_TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
