"""llm-compressor's side of a pair, run by the interpreter of its own environment: imports nothing of this project.

    python llmc.py MODEL TOKENS.npy METHOD OUT

TOKENS: calibration windows (samples, length), int64. Prints one line of JSON: seconds of each part. Peak memory and
wall time are taken from outside, over the whole process.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch


def modifier(method: str) -> Any:
    """The recipe of a method; heads and embeddings stay out, as in the project's examples."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.pruning.sparsegpt.base import SparseGPTModifier
    from llmcompressor.modifiers.pruning.wanda.base import WandaPruningModifier

    # "lm_head" alone is not heeded by its sparsifiers (0.14.0.1): they zero half of the embedding where it is tied
    ignore = ["re:.*lm_head"]
    if method == "sparsegpt-50":
        return SparseGPTModifier(sparsity=0.5, targets=["Linear"], ignore=ignore)
    if method == "wanda-2:4":
        return WandaPruningModifier(sparsity=0.5, mask_structure="2:4", targets=["Linear"], ignore=ignore)
    if method.startswith("gptq-4-g"):
        return GPTQModifier(targets="Linear", ignore=ignore, config_groups=grouped(int(method.rpartition("g")[2])))
    raise SystemExit(f"unknown method {method}")


def grouped(size: int) -> dict[str, Any]:
    """W4A16, symmetric, groups of ``size``: the preset scheme at 128, which small models' inputs are no multiple of."""
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": size}
    return {"group_0": {"targets": ["Linear"], "weights": weights}}


def main(source: str, tokens: str, method: str, out: str) -> None:
    began = time.perf_counter()
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    imported = time.perf_counter()
    windows = np.load(tokens)
    data = Dataset.from_dict({"input_ids": windows.tolist(), "attention_mask": np.ones_like(windows).tolist()})
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    loaded = time.perf_counter()
    oneshot(
        model=model, tokenizer=AutoTokenizer.from_pretrained(source), dataset=data, recipe=modifier(method),
        max_seq_length=windows.shape[1], num_calibration_samples=len(windows), shuffle_calibration_samples=False,
        batch_size=4,
    )  # fmt: skip
    done = time.perf_counter()
    model.save_pretrained(out)
    saved = time.perf_counter()
    parts = {"import": imported - began, "load": loaded - imported, "compress": done - loaded, "save": saved - done}
    print(json.dumps({"parts": parts, "bytes": sum(p.stat().st_size for p in Path(out).rglob("*") if p.is_file())}))


if __name__ == "__main__":
    main(*sys.argv[1:])
