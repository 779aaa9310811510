"""Held-out loss of a checkpoint by plain transformers, for both sides by the same interpreter.

    python loss.py CHECKPOINT TOKENS.npy

TOKENS: held-out windows (samples, length). Prints one line of JSON: nats per token; or why it does not load. Computes
in float32 where the loader can (transformers 5.17 leaves unpacked weights in the dtype of their scales), else in the
dtype of the checkpoint.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch


@torch.no_grad()
def main(checkpoint: str, tokens: str) -> None:
    from transformers import AutoModelForCausalLM

    windows, why = torch.from_numpy(np.load(tokens)), ""
    for dtype in (torch.float32, "auto"):
        try:
            model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).eval()
            print(json.dumps({"loss": loss(model, windows), "dtype": str(dtype)}))
            return
        except Exception as e:  # whatever a loader or a model raises is the result
            why = why or f"{type(e).__name__}: {str(e).splitlines()[0]}"[:200]
    print(json.dumps({"loss": None, "why": why}))


def loss(model: Any, windows: torch.Tensor) -> float:
    """Nats per token."""
    total = count = 0.0
    for window in windows.split(8):
        logits = model(window, use_cache=False).logits[:, :-1].float()
        total += float(
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten(), reduction="sum")
        )
        count += window[:, 1:].numel()
    return total / count


if __name__ == "__main__":
    main(*sys.argv[1:])
