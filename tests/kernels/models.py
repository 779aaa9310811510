"""Tiny random models of the recurrent families, and a way to run transformers' code wholly in float64."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

transformers.logging.set_verbosity_error()

VOCAB = 61
_BASE = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2}
_BASE |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
_ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
_ATTENTION |= {"max_position_embeddings": 256}
_HEADS = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 12, "mamba_expand": 2, "mamba_chunk_size": 8}
_LAYERS = ["linear_attention", "full_attention"]
_DELTA = {
    **_ATTENTION,
    "layer_types": _LAYERS,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
}
_MAMBA1 = {"state_size": 6, "time_step_rank": 4}

CONFIGS: dict[str, dict[str, Any]] = {
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 12, "n_groups": 2, "chunk_size": 8},
    "nemotron_h": {
        **_ATTENTION,
        "layers_block_type": ["linear_attention", "full_attention", "mlp"],
        "num_hidden_layers": 3,
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "ssm_state_size": 12,
        "n_groups": 4,
        "chunk_size": 8,
        "head_dim": 8,
    },
    "bamba": {**_ATTENTION, **_HEADS, "mamba_n_groups": 1, "attn_layer_indices": [1]},
    "falcon_h1": {**_ATTENTION, **_HEADS, "mamba_n_groups": 2, "mamba_d_ssm": 64, "head_dim": 8},
    "granitemoehybrid": {
        **_ATTENTION,
        **_HEADS,
        "mamba_n_groups": 2,
        "layer_types": _LAYERS,
        "shared_intermediate_size": 24,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"],
        "mamba_d_state": 12,
        "mamba_ngroups": 2,
        "n_mamba_heads": 8,
        "mamba_expand": 2,
        "chunk_size": 8,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_mem_blocks": 1,
        "max_position_embeddings": 256,
    },
    "mamba": _MAMBA1,
    "falcon_mamba": _MAMBA1,
    "jamba": {
        **_ATTENTION,
        "mamba_d_state": 6,
        "mamba_dt_rank": 4,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
    },
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "num_hidden_layers": 3,
        "mamba_d_state": 6,
        "mamba_dt_rank": 4,
        "n_mamba_heads": 2,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 256,
    },
    "qwen3_next": {
        **_DELTA,
        "head_dim": 8,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
    "qwen3_5_text": {**_DELTA, "head_dim": 8},
    "olmo_hybrid": _DELTA,
    "kimi_linear": {
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 48,
        "moe_intermediate_size": 16,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "layer_types": _LAYERS,
    },
    "lfm2": {**_ATTENTION, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
}


def build(family: str, **over: Any) -> Any:
    """The family's tiny model with weights large enough for every path to matter, in evaluation mode, float32."""
    config = AutoConfig.for_model(family, **{**_BASE, **CONFIGS[family], **over})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, experts_implementation="eager").eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(p + 0.2 * torch.randn_like(p) if p.ndim == 1 else torch.randn_like(p) / p.shape[-1] ** 0.5)
            if name.endswith("A_log"):
                p.copy_(0.5 * torch.randn_like(p))
    return model


def tokens(length: int, batch: int = 2) -> torch.Tensor:
    """Token ids without the special ones."""
    return torch.randint(3, VOCAB, (batch, length), generator=torch.Generator().manual_seed(3))


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Modelling code's casts to fp32 become casts to fp64, so that two ways to compute a model can agree to 1e-10."""
    single, cast = torch.float32, torch.Tensor.float
    torch.float32 = torch.float64  # type: ignore[misc]
    torch.Tensor.float = torch.Tensor.double  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        torch.float32 = single  # type: ignore[misc]
        torch.Tensor.float = cast  # type: ignore[method-assign]
