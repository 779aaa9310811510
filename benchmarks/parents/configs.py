"""The parents: plain transformers configs of 3 to 8 M parameters with a vocabulary of 4096.

Sizes halve cleanly: hidden and FFN stay multiples of 64, heads stay whole per group. ``PARENTS`` is the whole registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import (
    GraniteMoeHybridConfig,
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    NemotronHConfig,
    PreTrainedConfig,
)

MAMBA, MLP, ATTENTION = "linear_attention", "mlp", "full_attention"

_HYBRID: dict[str, Any] = {
    "hidden_size": 192,
    "layers_block_type": [MAMBA, MLP, MAMBA, MLP, MAMBA, ATTENTION, MLP, MAMBA, MLP],
    "mamba_num_heads": 32,  # 4 groups x 8 heads x 16 channels
    "n_groups": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 32,
    "chunk_size": 64,
    "intermediate_size": 1024,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 48,
    "max_position_embeddings": 4096,
    "num_nextn_predict_layers": 0,
}
_MAMBA2: dict[str, Any] = {
    "hidden_size": 192,
    "num_hidden_layers": 10,
    "expand": 2,
    "num_heads": 24,  # 4 groups x 6 heads x 16 channels
    "n_groups": 4,
    "head_dim": 16,
    "state_size": 32,
    "chunk_size": 64,
}
_MAMBA1: dict[str, Any] = {
    "hidden_size": 192,
    "num_hidden_layers": 12,
    "expand": 2,
    "state_size": 16,
    "time_step_rank": 12,
}
_LLAMA: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 5,
    "intermediate_size": 640,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
_GRANITE: dict[str, Any] = {
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "layer_types": ["mamba", "mamba", "mamba", "attention", "mamba", "mamba"],
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "intermediate_size": 128,
    "shared_intermediate_size": 256,
    "mamba_n_heads": 24,
    "mamba_n_groups": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 32,
    "mamba_expand": 2,
    "mamba_chunk_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}

PARENTS: dict[str, tuple[Callable[..., PreTrainedConfig], dict[str, Any]]] = {
    "hybrid": (NemotronHConfig, _HYBRID),
    "mamba2": (Mamba2Config, _MAMBA2),
    "mamba1": (MambaConfig, _MAMBA1),
    "llama": (LlamaConfig, _LLAMA),
    "granite-moe": (GraniteMoeHybridConfig, _GRANITE),
}


def parent_config(name: str, tokens: Mapping[str, int], overrides: Mapping[str, Any]) -> PreTrainedConfig:
    """The config of a registered parent; ``tokens`` gives vocab_size and the special ids, ``overrides`` win."""
    build, fields = PARENTS[name]
    return build(**{**fields, **tokens, **overrides})
