"""The embedded default: a small hybrid of Mamba-2, attention and MLP layers, built in code with random weights."""

from __future__ import annotations

from pathlib import Path

import torch

#: About 3 M parameters: 4 SSM groups of 4 heads, so that group-awareness has something to respect.
CONFIG = {
    "vocab_size": 2048,
    "hidden_size": 192,
    "layers_block_type": ["mamba", "mlp", "mamba", "mlp", "attention", "mlp", "mamba", "mlp"],
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 24,
    "intermediate_size": 768,
    "mamba_num_heads": 16,
    "mamba_head_dim": 24,
    "n_groups": 4,
    "ssm_state_size": 32,
    "chunk_size": 32,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "dtype": "float32",
}


def build(folder: Path, seed: int = 0) -> Path:
    """Write the hybrid as a standard checkpoint to ``folder``."""
    from transformers import NemotronHConfig, NemotronHForCausalLM
    from transformers.utils import logging

    torch.manual_seed(seed)
    fields = {k: v for k, v in CONFIG.items() if k != "dtype"}
    kinds = {"mamba": "linear_attention", "attention": "full_attention"}
    fields["layers_block_type"] = [kinds.get(k, k) for k in CONFIG["layers_block_type"]]  # type: ignore[attr-defined]
    model = NemotronHForCausalLM(NemotronHConfig(**fields))
    with torch.no_grad():
        for name, p in model.named_parameters():
            # norm weights of 1 and biases of 0 would hide a wrong cut
            if p.ndim == 1:
                p.add_(0.2 * torch.randn(p.shape))
            elif "conv1d" not in name:
                p.mul_(2.0)
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    logging.enable_progress_bar()
    return folder
