"""Calibrate, plan and cut a checkpoint ten times larger than the memory the commands may have.

    python benchmarks/stream_calibrate.py [--limit-mib 1024] [--times 10] [--folder DIR]

Makes a Nemotron-H checkpoint of random bf16 weights, ``times`` as large as the limit, with a byte tokenizer and random
text (all removed afterwards). Then three commands run in processes of their own under ``ulimit -d``, which bounds all
private writable memory: heap, anonymous mappings, stacks. Read-only pages of libraries are not counted by it; the
resident peak, which is printed beside it, counts them. MALLOC_MMAP_THRESHOLD_ is set to 1 MiB: left alone, glibc learns
to take blocks of up to 32 MiB from its heap, which small objects between them keep from shrinking again.

    secateur calibrate P --text T --samples 4 --length 32 --dtype bfloat16 --out S
    secateur plan P --params 60% --stats S --out L
    secateur prune P --plan L --stats S --out C

A last command shows that the limit bites: it allocates as much as the limit and must fail. Exit code 1 when a command
fails or that one does not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
# no PyTorch in this process: the resident peak of a child starts from that of the process that starts it

UNIT = "M-M-M-M-*-"
UNIT_PARAMETERS = 296_000_000
CONFIG = {
    "architectures": ["NemotronHForCausalLM"],
    "model_type": "nemotron_h",
    "vocab_size": 1024,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "mamba_num_heads": 64,
    "mamba_head_dim": 64,
    "n_groups": 8,
    "ssm_state_size": 128,
    "conv_kernel": 4,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def make_parent(folder: Path, text: Path, pattern: str, sizes: Mapping[str, Any] = CONFIG) -> None:
    """Random weights for a ``pattern`` of layers, drawn from one pool at changing offsets; tokenizer and text."""
    import torch

    from secateur.anatomy import layout as lo
    from secateur.anatomy.anatomy import Anatomy
    from secateur.checkpoint import TensorSpec, write_json, write_tensors

    config: dict[str, Any] = {**sizes, "hybrid_override_pattern": pattern, "num_hidden_layers": len(pattern)}
    anatomy = Anatomy(config)
    pool = (torch.randn(1 << 26) * 0.02).bfloat16()
    draw = random.Random(0)

    def produce(spec: TensorSpec) -> torch.Tensor:
        count = 1
        for size in spec.shape:
            count *= size
        if len(spec.shape) == 1:
            return torch.rand(count).bfloat16()  # norm weights, steps and log decays of a size that models have
        start = draw.randrange(len(pool) - count)
        return pool[start : start + count].view(spec.shape)

    folder.mkdir(parents=True)
    specs = [TensorSpec(d.name, "BF16", lo.shape(d.layout, anatomy.sizes)) for d in anatomy.tensors.values()]
    write_tensors(folder, specs, produce, shard_bytes=2 * 10**9)
    write_json(folder / "config.json", config)
    save_tokenizer(folder)
    text.write_text(" ".join("".join(draw.choices("abcdefgh", k=5)) for _ in range(2000)))


def save_tokenizer(folder: Path) -> None:
    """One token per byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


def limited(limit: int, command: list[str], *, told: bool = True) -> tuple[int, float, int]:
    """(exit code, seconds, peak resident bytes) of a command with at most ``limit`` bytes of private memory."""
    start = time.perf_counter()
    shell = ["sh", "-c", 'ulimit -d "$0" && exec "$@"', str(limit >> 10), *command]
    process = subprocess.Popen(
        shell, stdout=subprocess.DEVNULL, stderr=None if told else subprocess.DEVNULL, env={**os.environ, **MALLOC}
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    return os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def commands(work: Path) -> dict[str, list[str]]:
    """Verb -> command."""
    base = [sys.executable, "-m", "secateur"]
    parent, stats, plan = str(work / "parent"), str(work / "stats.safetensors"), str(work / "plan.json")
    given = ["--text", str(work / "text.txt"), "--samples", "4", "--length", "32", "--dtype", "bfloat16"]
    return {
        "calibrate": [*base, "calibrate", parent, *given, "--out", stats],
        "plan": [*base, "plan", parent, "--params", "60%", "--stats", stats, "--out", plan],
        "prune": [*base, "prune", parent, "--plan", plan, "--stats", stats, "--out", str(work / "child")],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit-mib", type=int, default=1024)
    parser.add_argument("--times", type=float, default=10.0, help="size of the checkpoint over the limit")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; needs 1.7 times the checkpoint")
    args = parser.parse_args()
    limit = args.limit_mib << 20
    work = Path(tempfile.mkdtemp(prefix="stream-calibrate-", dir=args.folder))
    failed = []
    try:
        pattern = UNIT * -(-int(limit * args.times) // (2 * UNIT_PARAMETERS))
        given = (work / "parent", work / "text.txt", pattern)
        maker = multiprocessing.get_context("spawn").Process(target=make_parent, args=given)
        maker.start()
        maker.join()
        size = sum(p.stat().st_size for p in (work / "parent").glob("*.safetensors"))
        layers = json.loads((work / "parent" / "config.json").read_text())["num_hidden_layers"]
        print(f"checkpoint {size / 1e9:.2f} GB in {layers} layers, limit {limit / 1e9:.2f} GB\n")
        print("| command | limit (ulimit -d) | checkpoint | checkpoint / limit | resident peak | seconds |")
        print("|---|---:|---:|---:|---:|---:|")
        for verb, command in commands(work).items():
            code, seconds, peak = limited(limit, command)
            failed += [verb] if code else []
            if code:
                break
            cells = (verb, f"{args.limit_mib} MiB", f"{size / 1e9:.2f} GB", f"{size / limit:.1f}")
            print(f"| {' | '.join(cells)} | {peak / 2**20:.0f} MiB | {seconds:.0f} |", flush=True)
        eats = [sys.executable, "-c", f"bytearray({limit})"]
        failed += [] if limited(limit, eats, told=False)[0] else ["the limit, which did not bite,"]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
