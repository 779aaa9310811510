"""State-space models and their hybrids with attention."""

from __future__ import annotations

from .row import Row

ROWS: dict[str, Row] = {}
ROWS["nemotron_h"] = Row(
    config=dict(
        hidden_size=40,
        layers_block_type=["linear_attention", "mlp", "full_attention", "linear_attention", "moe", "mlp"],
        num_attention_heads=6, num_key_value_heads=3, head_dim=10, intermediate_size=52, ssm_state_size=14,
        mamba_num_heads=12, mamba_head_dim=8, n_groups=2, chunk_size=8, n_routed_experts=5, moe_intermediate_size=20,
        moe_shared_expert_intermediate_size=24, num_experts_per_tok=2,
    ),
    cuts=(
        {"hidden": 32}, {"ssm_heads": 8}, {"ssm_head_dim": 6}, {"ssm_state": 10}, {"ssm_groups": 1}, {"ffn": 40},
        {"expert_ffn": 12}, {"shared_ffn": 16}, {"kv_heads": 2}, {"q_per_kv": 1}, {"head_dim": 6}, {"experts": 3},
    ),
    combined={"hidden": 32, "ssm_heads": 8, "ssm_head_dim": 6, "ssm_state": 10, "ffn": 40, "expert_ffn": 12,
              "shared_ffn": 16, "kv_heads": 2, "head_dim": 6},
    refused=(({"ssm_heads": 7}, "groups"),),
    drops=((0, 2, 4, 5), (0, 1, 2)),
    refused_drops=(((0, 1, 3, 5), "attention"),),
    no_permute=("w",),
)  # fmt: skip
