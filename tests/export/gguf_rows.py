"""Tiny models of the families llama.cpp knows, of sizes it takes; GGUF files read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

from tests.contract.harness import randomize

VOCAB = 96
_COMMON = {"vocab_size": VOCAB, "hidden_size": 64, "max_position_embeddings": 512}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
_SSM = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 2, "mamba_d_state": 16, "mamba_d_conv": 4}
_BLOCKS = ["linear_attention", "mlp", "full_attention", "linear_attention"]

ROWS: Mapping[str, Mapping[str, Any]] = {
    "llama": {**_HEADS, "num_hidden_layers": 2, "intermediate_size": 96},
    "mistral": {**_HEADS, "num_hidden_layers": 2, "intermediate_size": 96, "sliding_window": None},
    "mixtral": {**_HEADS, "num_hidden_layers": 2, "intermediate_size": 96, "num_local_experts": 4,
              "sliding_window": None},
    "qwen3": {**_HEADS, "num_hidden_layers": 2, "intermediate_size": 96},
    "qwen3_moe": {
        **_HEADS, "num_hidden_layers": 2, "intermediate_size": 96, "moe_intermediate_size": 64, "num_experts": 4,
        "num_experts_per_tok": 2, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
    },
    "olmoe": {
        "num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 2, "intermediate_size": 96,
        "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": False,
    },
    "mamba": {"num_hidden_layers": 2, "state_size": 16, "expand": 2, "time_step_rank": 8},
    "falcon_mamba": {"num_hidden_layers": 2, "state_size": 16, "expand": 2, "time_step_rank": 8},
    "mamba2": {
        "num_hidden_layers": 2, "state_size": 16, "expand": 2, "num_heads": 8, "head_dim": 16, "n_groups": 2,
        "chunk_size": 8,
    },
    "nemotron_h": {
        **_HEADS, "layers_block_type": _BLOCKS, "intermediate_size": 96, "mamba_num_heads": 8, "mamba_head_dim": 16,
        "n_groups": 2, "ssm_state_size": 16, "conv_kernel": 4, "chunk_size": 8, "mlp_hidden_act": "relu2",
    },
    "granitemoehybrid": {
        **_HEADS, **_SSM, "num_hidden_layers": 3,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "intermediate_size": 64, "shared_intermediate_size": 96, "num_local_experts": 4, "num_experts_per_tok": 2,
        "mamba_expand": 2, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 2.0,
        "attention_multiplier": 0.2, "mamba_chunk_size": 8,
    },
    "granitemoehybrid@dense": {
        **_HEADS, **_SSM, "num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"],
        "intermediate_size": 96, "shared_intermediate_size": 96, "num_local_experts": 0, "num_experts_per_tok": 0,
        "mamba_expand": 2, "mamba_chunk_size": 8,
    },
    "falcon_h1": {
        **_HEADS, **_SSM, "num_hidden_layers": 2, "intermediate_size": 96, "mamba_d_ssm": 128, "mamba_chunk_size": 8,
        "mamba_rms_norm": True, "mamba_norm_before_gate": False, "key_multiplier": 0.5, "lm_head_multiplier": 0.7,
        "embedding_multiplier": 2.0, "mlp_multipliers": [0.8, 0.6], "ssm_multipliers": [0.9, 0.8, 0.7, 1.1, 1.2],
        "attention_out_multiplier": 0.9, "ssm_in_multiplier": 1.3, "ssm_out_multiplier": 0.8,
    },
    "jamba": {
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4, "intermediate_size": 96,
        "num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 16, "mamba_dt_rank": 8, "mamba_expand": 2,
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
        "use_mamba_kernels": False,
    },
}  # fmt: skip


def build(name: str, folder: Path, **over: Any) -> Path:
    """Save the tiny model of a row, in float32."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name.partition("@")[0], **{**_COMMON, **ROWS[name], **over})
    randomize(AutoModelForCausalLM.from_config(config, dtype=torch.float32), seed=7).save_pretrained(folder)
    return folder


def bpe() -> Tokenizer:
    """A byte-level BPE tokenizer of 300 tokens; <s> is 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>"], initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(["the old house by the sea was there, and the sea was cold; it's 1492"] * 9, trainer)
    return tokenizer


def read_back(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, str]]:
    """(fields, tensors as float32, type of each)."""
    import gguf

    reader = gguf.GGUFReader(path)
    fields = {n: f.contents() for n, f in reader.fields.items()}
    tensors = {
        t.name: gguf.dequantize(t.data, t.tensor_type).reshape(*map(int, reversed(t.shape))) for t in reader.tensors
    }
    return fields, tensors, {t.name: t.tensor_type.name.lower() for t in reader.tensors}
