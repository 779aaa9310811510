"""Models for the comparison where no trained one is at hand or large enough to time: random weights.

Everything a compressor does on them takes as long as on trained weights; only the loss means nothing.

    python -m benchmarks.peers.models NAME OUT CHECKPOINT_WITH_TOKENIZER
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB = 4096
_ATTENTION = dict(num_attention_heads=12, num_key_value_heads=4, head_dim=64, max_position_embeddings=2048)
#: Name -> (model type, config fields).
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba2-4m": (
        "mamba2",
        dict(hidden_size=256, num_hidden_layers=4, state_size=32, num_heads=16, head_dim=32, n_groups=2, expand=2),
    ),
    "llama-21m": (
        "llama",
        dict(
            hidden_size=512, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=4,
            head_dim=64, max_position_embeddings=2048,
        ),
    ),
    "llama-88m": ("llama", dict(hidden_size=768, intermediate_size=2048, num_hidden_layers=12, **_ATTENTION)),
    "llama-303m": (
        "llama",
        dict(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=18, num_attention_heads=16,
            num_key_value_heads=8, head_dim=64, max_position_embeddings=2048,
        ),
    ),
    "llama-1b": (
        "llama",
        dict(
            hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,
            num_key_value_heads=4, head_dim=64, max_position_embeddings=2048,
        ),
    ),
}  # fmt: skip


@torch.no_grad()
def build(name: str, out: Path, tokenizer: Path) -> Path:
    """Save the model ``name`` with the tokenizer files of the checkpoint ``tokenizer``, unless it is there."""
    if (out / "config.json").is_file():
        return out
    torch.manual_seed(0)
    kind, fields = SHAPES[name]
    config = AutoConfig.for_model(kind, vocab_size=VOCAB, tie_word_embeddings=True, **fields)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(out)
    for file in tokenizer.glob("tokenizer*"):
        shutil.copy2(file, out / file.name)
    return out


if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
