"""Transformers and mixtures of experts."""

from __future__ import annotations

from .row import Row

ROWS: dict[str, Row] = {}
ROWS["llama"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, max_position_embeddings=128, attention_bias=True, mlp_bias=True,
    ),
    cuts=({"hidden": 32}, {"ffn": 40}, {"kv_heads": 1}, {"q_per_kv": 1}),
    combined={"hidden": 32, "ffn": 40, "kv_heads": 1},
    refused=(({"head_dim": 8}, "rotary"), ({"hidden": 38}, "multiple of num_attention_heads")),
    drops=((0, 2), (1,)),
    no_permute=("e",),
)  # fmt: skip
