"""A Nemotron-H-8B-shaped checkpoint of random weights with the layer statistics of trained models, made shard by shard.

What trained weights have and white noise has not, and what scores, repairs and half precision feel: residual writers
that are small next to what reads the stream, rows whose scale spreads log-normally, a few outlier channels of the
stream, decays and step sizes of the ranges that Mamba-2 is initialised and trained to, norm weights around one.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

PATTERN = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
FULL = {
    "hidden_size": 4096,
    "intermediate_size": 21504,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "mamba_num_heads": 128,
    "mamba_head_dim": 64,
    "n_groups": 8,
    "ssm_state_size": 128,
    "vocab_size": 131072,
}
OUTLIERS, POOL = 8, 1 << 26


def config(scale: float) -> dict[str, Any]:
    """The published shape at 1; below, every width shrinks with ``scale`` and depth with its root (10 layers at least,
    so that all three kinds of layer are there)."""
    layers = max(10, round(len(PATTERN) * math.sqrt(scale)))
    heads = max(1, round(32 * scale))
    groups = max(1, round(8 * scale))
    sizes = {
        **FULL,
        "hidden_size": max(64, 64 * round(64 * scale)),
        "intermediate_size": max(256, 64 * round(336 * scale)),
        "num_attention_heads": max(2, heads),
        "num_key_value_heads": max(1, heads // 4),
        "mamba_num_heads": max(8 * groups, groups * round(128 * scale / groups)),
        "n_groups": groups,
        "vocab_size": max(512, 512 * round(256 * scale)),
    }
    kinds = PATTERN[:layers] if "*" in PATTERN[:layers] else PATTERN[: layers - 2] + "*-"
    return {
        "architectures": ["NemotronHForCausalLM"],
        "model_type": "nemotron_h",
        **(FULL if scale == 1 else sizes),
        "hybrid_override_pattern": kinds,
        "num_hidden_layers": len(kinds),
        "conv_kernel": 4,
        "chunk_size": 128,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def keep(made: dict[str, Any]) -> dict[str, int]:
    """The 4 B shape (hidden 3072, ffn 12288, 112 SSM heads) in the proportions of ``made``."""
    heads = made["mamba_num_heads"]
    each = heads // made["n_groups"]
    return {
        "hidden": made["hidden_size"] * 3 // 4,
        "ffn": made["intermediate_size"] * 4 // 7,
        "ssm_heads": made["n_groups"] * max(1, each * 7 // 8),
    }


def make(folder: Path, text: Path, scale: float, seed: int = 0, raw: dict[str, Any] | None = None) -> None:
    """The checkpoint with a byte tokenizer, and random words to read. ``raw``: a config in place of ``scale``."""
    import torch
    from benchmarks.stream_calibrate import save_tokenizer

    from secateur.anatomy import layout as lo
    from secateur.anatomy.anatomy import Anatomy
    from secateur.checkpoint import TensorSpec, write_json, write_tensors

    raw = config(scale) if raw is None else raw
    anatomy, draw = Anatomy(raw), random.Random(seed)
    torch.manual_seed(seed)
    pool = torch.randn(min(POOL, max(1 << 20, 4 * max(raw["vocab_size"], raw["intermediate_size"]) * 64)))
    outliers = torch.randperm(raw["hidden_size"])[:OUTLIERS]
    writers = 1 / math.sqrt(2 * raw["num_hidden_layers"])

    def produce(spec: TensorSpec) -> Any:
        key = anatomy.tensors[spec.name].key
        if len(spec.shape) == 1:
            return vector(key, spec.shape[0]).bfloat16()
        return slabs(key, spec.shape)

    def vector(key: str, n: int) -> torch.Tensor:
        if key.endswith("A_log"):
            return torch.empty(n).uniform_(1, 16).log()
        if key.endswith("dt_bias"):
            steps = torch.empty(n).uniform_(math.log(1e-3), math.log(1e-1)).exp()
            return steps + torch.log(-torch.expm1(-steps))
        if key.endswith((".D", "norm.weight", "norm_f.weight")):
            return 1 + 0.2 * torch.randn(n)
        return 0.02 * torch.randn(n)

    def slabs(key: str, shape: tuple[int, ...]) -> Any:
        """Rows of log-normal scale from the pool, at most 2^22 entries at a time."""
        row = math.prod(shape[1:])
        size = writers if key.endswith(("out_proj.weight", "o_proj.weight", "down_proj.weight")) else 1.0
        step = max(1, (1 << 22) // row)
        for start in range(0, shape[0], step):
            n = min(step, shape[0] - start)
            at = draw.randrange(len(pool) - n * row) if len(pool) > n * row else 0
            part = (
                pool[at : at + n * row].reshape(n, *shape[1:]) if len(pool) >= n * row else torch.randn(n, *shape[1:])
            )
            spread = torch.exp(0.4 * torch.randn(n)).view(n, *[1] * (len(shape) - 1))
            part = part * spread * size * (1.0 if key.startswith("embed") else row**-0.5)
            if key.startswith("embed"):
                part[:, outliers] *= 6.0
            yield part.bfloat16()

    folder.mkdir(parents=True)
    specs = [TensorSpec(d.name, "BF16", lo.shape(d.layout, anatomy.sizes)) for d in anatomy.tensors.values()]
    write_tensors(folder, specs, produce, shard_bytes=5 * 10**9 if scale == 1 else 1 << 26)
    write_json(folder / "config.json", raw)
    save_tokenizer(folder)
    words = ["".join(draw.choices("etaoinshrdlucmfw", k=draw.randint(2, 8))) for _ in range(3000)]
    text.write_text("\n\n".join(" ".join(draw.choices(words, k=120)) for _ in range(200)))
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == anatomy.n_layers
