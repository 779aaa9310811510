"""Held-out loss of a checkpoint by plain transformers, for both sides by the same interpreter.

    python loss.py CHECKPOINT TOKENS.npy

TOKENS: held-out windows (samples, length). Prints one line of JSON: nats per token; or why it does not load.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch


@torch.no_grad()
def main(checkpoint: str, tokens: str) -> None:
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    except Exception as e:  # whatever a loader raises is the result
        print(json.dumps({"loss": None, "why": f"{type(e).__name__}: {str(e).splitlines()[0]}"[:200]}))
        return
    total = count = 0.0
    for window in torch.from_numpy(np.load(tokens)).split(8):
        logits = model(window, use_cache=False).logits[:, :-1].float()
        total += float(
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten(), reduction="sum")
        )
        count += window[:, 1:].numel()
    print(json.dumps({"loss": total / count}))


if __name__ == "__main__":
    main(*sys.argv[1:])
