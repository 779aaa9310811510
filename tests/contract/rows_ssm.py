"""State-space models and their hybrids with attention."""

from __future__ import annotations

from .row import Row

ROWS: dict[str, Row] = {}

_MAMBA1 = dict(hidden_size=40, state_size=6, num_hidden_layers=3, expand=2, time_step_rank=5)
_MAMBA1_CUTS = ({"hidden": 32}, {"ssm_channels": 60}, {"ssm_state": 4}, {"dt_rank": 3})
_MAMBA1_ALL = {"hidden": 32, "ssm_channels": 60, "ssm_state": 4, "dt_rank": 3}
ROWS["mamba"] = Row(
    config=dict(**_MAMBA1, use_bias=True), cuts=_MAMBA1_CUTS, combined=_MAMBA1_ALL, drops=((0, 2), (1,)),
    no_permute=("w",),
)  # fmt: skip
ROWS["mamba@plain"] = Row(
    config=dict(**_MAMBA1, use_bias=False, use_conv_bias=False, tie_word_embeddings=False),
    cuts=({"hidden": 30},), combined=_MAMBA1_ALL, no_permute=("w",),
)  # fmt: skip
ROWS["falcon_mamba"] = Row(
    config=dict(**_MAMBA1, tie_word_embeddings=False), cuts=_MAMBA1_CUTS, combined=_MAMBA1_ALL, drops=((0, 2), (1,)),
    eps_fields=("layer_norm_epsilon", "mixer_rms_eps"), no_permute=("w",),
)  # fmt: skip
ROWS["falcon_mamba@biases"] = Row(
    config=dict(**_MAMBA1, use_bias=True, use_conv_bias=False), cuts=(), combined=_MAMBA1_ALL,
    eps_fields=("layer_norm_epsilon", "mixer_rms_eps"), no_permute=("w",),
)  # fmt: skip

_MAMBA2 = dict(
    hidden_size=48, state_size=14, num_hidden_layers=3, expand=2, num_heads=12, head_dim=8, n_groups=2, chunk_size=8,
)  # fmt: skip
_MAMBA2_ALL = {"hidden": 24, "ssm_heads": 6, "ssm_head_dim": 4, "ssm_state": 10}
ROWS["mamba2"] = Row(
    config=dict(**_MAMBA2, use_bias=True),
    cuts=(
        {"ssm_heads": 6}, {"ssm_head_dim": 4}, {"ssm_state": 10}, {"hidden": 32}, {"ssm_groups": 1, "ssm_heads": 6},
        {"hidden": 32, "ssm_heads": 8}, {"hidden": 36, "ssm_head_dim": 6},
    ),
    combined=_MAMBA2_ALL,
    refused=(
        ({"ssm_heads": 10}, "expand"), ({"hidden": 40}, "expand"), ({"ssm_head_dim": 6}, "expand"),
        ({"ssm_heads": 7}, "groups"), ({"hidden": 40, "ssm_heads": 8}, "expand"),
    ),
    drops=((0, 2), (1,)),
    no_permute=("w",),
)  # fmt: skip
ROWS["mamba2@tied"] = Row(
    config=dict(**_MAMBA2, use_conv_bias=False, tie_word_embeddings=True), cuts=(), combined=_MAMBA2_ALL,
    no_permute=("w",),
)  # fmt: skip

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
    refused=(({"ssm_heads": 7}, "groups"), ({"experts": 1}, "two best")),
    drops=((0, 2, 4, 5), (0, 1, 2), (1, 2, 5), (2, 3)),
    refused_drops=(((0, 1, 3, 5), "attention"),),
    no_permute=("w",),
)  # fmt: skip

_NEMOTRON = ROWS["nemotron_h"].config
ROWS["nemotron_h@latent"] = Row(
    config=dict(**_NEMOTRON, moe_latent_size=18, mlp_bias=True, use_bias=True, n_shared_experts=2),
    cuts=({"moe_latent": 12}, {"expert_ffn": 12}, {"experts": 3}),
    combined={"hidden": 32, "moe_latent": 12, "expert_ffn": 12, "shared_ffn": 16, "experts": 4, "ssm_heads": 8},
    drops=((0, 2, 4),),
    no_permute=("w",),
)  # fmt: skip
ROWS["nemotron_h@tied"] = Row(
    config=dict(
        **_NEMOTRON, tie_word_embeddings=True, attention_bias=True, use_conv_bias=False, moe_latent_size=18,
        n_shared_experts=2,
    ),
    cuts=(),
    combined={"hidden": 32, "moe_latent": 12, "head_dim": 6},
    no_permute=("w",),
)  # fmt: skip
ROWS["nemotron_h@groups"] = Row(
    config={**_NEMOTRON, "n_routed_experts": 9, "n_group": 3, "topk_group": 2, "num_experts_per_tok": 3},
    cuts=({"expert_ffn": 12},),
    refused=(({"experts": 6}, "change group"),),
    no_permute=("w", "E"),
)  # fmt: skip

_SSM = dict(mamba_n_heads=12, mamba_d_head=8, mamba_n_groups=2, mamba_d_state=14, mamba_expand=2, mamba_chunk_size=8)
_HEADS = dict(num_attention_heads=6, num_key_value_heads=3, max_position_embeddings=128)
_BIASES = dict(mamba_proj_bias=True, attention_bias=True, mlp_bias=True, mamba_conv_bias=False)
_BAMBA = dict(**_SSM, **_HEADS, hidden_size=48, intermediate_size=52, num_hidden_layers=4)
ROWS["bamba"] = Row(
    config=dict(**_BAMBA, attn_layer_indices=[1]),
    cuts=(
        {"ssm_heads": 6}, {"ssm_head_dim": 4}, {"ssm_state": 10}, {"ssm_groups": 1}, {"hidden": 32}, {"ffn": 40},
        {"kv_heads": 2}, {"q_per_kv": 1}, {"hidden": 32, "ssm_heads": 8},
    ),
    combined={"hidden": 32, "ssm_heads": 8, "ssm_state": 10, "ffn": 40, "kv_heads": 2},
    refused=(({"ssm_heads": 8}, "mamba_expand"), ({"hidden": 40}, "mamba_expand"), ({"head_dim": 6}, "rotary")),
    drops=((0, 1, 3), (1,)),
    refused_drops=(((0, 2, 3), "no attention layer is left"),),
    no_permute=("w", "e"),
)  # fmt: skip
ROWS["bamba@biases"] = Row(
    config={
        **_BAMBA, **_BIASES, "attn_layer_indices": [0, 2], "head_dim": 12, "tie_word_embeddings": True,
        "num_key_value_heads": None,
    },
    cuts=({"hidden": 32}, {"kv_heads": 4}),
    combined={"hidden": 24, "ssm_heads": 6, "ssm_head_dim": 4, "ffn": 40, "kv_heads": 5},
    drops=((0, 1, 3), (2, 3)),
    no_permute=("w", "e"),
)  # fmt: skip

_FALCON_H1 = dict(
    **_SSM, **_HEADS, hidden_size=40, intermediate_size=52, num_hidden_layers=3, head_dim=10, mamba_d_ssm=96,
    ssm_multipliers=[0.5, 0.7, 0.9, 1.1, 1.3], mlp_multipliers=[0.8, 1.2], key_multiplier=0.6,
    attention_out_multiplier=0.9, attention_in_multiplier=1.1, ssm_in_multiplier=1.2, ssm_out_multiplier=0.7,
    lm_head_multiplier=0.5, embedding_multiplier=3.0,
)  # fmt: skip
_FALCON_H1_ALL = {
    "hidden": 32, "ssm_heads": 8, "ssm_head_dim": 6, "ssm_state": 10, "ffn": 40, "kv_heads": 2, "q_per_kv": 1,
}  # fmt: skip
ROWS["falcon_h1"] = Row(
    config=dict(**_FALCON_H1, mamba_rms_norm=True, mamba_norm_before_gate=False),
    cuts=(
        {"ssm_heads": 8}, {"ssm_head_dim": 6}, {"ssm_state": 10}, {"ssm_groups": 1}, {"hidden": 32}, {"ffn": 40},
        {"kv_heads": 2}, {"q_per_kv": 1},
    ),
    combined=_FALCON_H1_ALL,
    refused=(({"head_dim": 8}, "rotary"), ({"ssm_heads": 9}, "groups")),
    drops=((0, 2), (1,)),
    no_permute=("w", "e"),
)  # fmt: skip
ROWS["falcon_h1@no_norm"] = Row(
    config=dict(**_FALCON_H1, **_BIASES, projectors_bias=True, mamba_rms_norm=False, tie_word_embeddings=True),
    cuts=({"ssm_heads": 8},), combined=_FALCON_H1_ALL, no_permute=("w", "e"),
)  # fmt: skip
ROWS["falcon_h1@norm_first"] = Row(
    config=dict(**_FALCON_H1, mamba_rms_norm=True, mamba_norm_before_gate=True, projectors_bias=True),
    cuts=({"ssm_head_dim": 6},), combined=_FALCON_H1_ALL, no_permute=("w", "e"),
)  # fmt: skip

_GRANITE = dict(
    **_SSM, **_HEADS, hidden_size=48, intermediate_size=20, shared_intermediate_size=24, num_hidden_layers=4,
    embedding_multiplier=12.0, logits_scaling=8.0, residual_multiplier=0.22, attention_multiplier=0.15,
)  # fmt: skip
_GRANITE_TYPES = ["linear_attention", "full_attention", "linear_attention", "linear_attention"]
ROWS["granitemoehybrid"] = Row(
    config=dict(
        **_GRANITE, num_local_experts=5, num_experts_per_tok=2, layer_types=_GRANITE_TYPES, tie_word_embeddings=True,
    ),
    cuts=(
        {"ssm_heads": 6}, {"ssm_head_dim": 4}, {"ssm_state": 10}, {"ssm_groups": 1}, {"hidden": 32}, {"expert_ffn": 12},
        {"shared_ffn": 16}, {"kv_heads": 2}, {"q_per_kv": 1}, {"head_dim": 6}, {"experts": 3}, {"experts": 0},
    ),
    combined={
        "hidden": 32, "ssm_heads": 8, "ssm_state": 10, "expert_ffn": 12, "shared_ffn": 16, "kv_heads": 2, "experts": 3,
        "head_dim": 6,
    },
    refused=(
        ({"ssm_heads": 8}, "mamba_expand"), ({"hidden": 40}, "mamba_expand"), ({"experts": 1}, "num_experts_per_tok"),
    ),
    drops=((0, 1, 3), (1, 2)),
    refused_drops=(((0, 2, 3), "no attention layer is left"),),
    no_permute=("w",),
)  # fmt: skip
ROWS["granitemoehybrid@rope"] = Row(
    config=dict(
        **_GRANITE, mamba_proj_bias=True, attention_bias=True, mamba_conv_bias=False, num_local_experts=0,
        layer_types=_GRANITE_TYPES, position_embedding_type="rope",
    ),
    cuts=({"hidden": 32}, {"kv_heads": 2}),
    combined={"hidden": 24, "ssm_heads": 6, "shared_ffn": 16, "kv_heads": 2},
    refused=(({"head_dim": 6}, "rotary"),),
    drops=((0, 1, 3),),
    no_permute=("w", "e"),
)  # fmt: skip
ROWS["granitemoehybrid@attention_only"] = Row(
    config=dict(
        **_GRANITE, num_local_experts=0, layer_types=["full_attention"] * 4, position_embedding_type="rope",
        tie_word_embeddings=True,
    ),
    cuts=({"hidden": 30},),
    combined={"hidden": 36, "shared_ffn": 16, "kv_heads": 2},
    refused=(({"hidden": 32}, "mamba_n_heads"), ({"head_dim": 6}, "rotary")),
    drops=((0, 3),),
    no_permute=("e",),
)  # fmt: skip

_JAMBA = dict(
    hidden_size=40, intermediate_size=52, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=3,
    num_experts=4, num_experts_per_tok=2, expert_layer_period=2, expert_layer_offset=1, attn_layer_period=3,
    attn_layer_offset=1, mamba_d_state=6, mamba_dt_rank=7, mamba_expand=2,
)  # fmt: skip
ROWS["jamba"] = Row(
    config=dict(**_JAMBA, head_dim=10),
    cuts=(
        {"hidden": 20}, {"ssm_channels": 40}, {"ssm_state": 4}, {"dt_rank": 4}, {"ffn": 40}, {"expert_ffn": 40},
        {"experts": 3}, {"kv_heads": 2}, {"q_per_kv": 1}, {"head_dim": 6}, {"hidden": 30, "ssm_channels": 60},
    ),
    combined={
        "hidden": 32, "ssm_channels": 32, "ssm_state": 4, "dt_rank": 4, "ffn": 40, "experts": 3, "kv_heads": 2,
        "head_dim": 6,
    },
    refused=(
        ({"hidden": 32}, "mamba_expand"), ({"ssm_channels": 60}, "mamba_expand"),
        ({"experts": 1}, "num_experts_per_tok"),
    ),
    drops=((1, 2, 3), (0, 1)),
    refused_drops=(((0, 1, 3), "every expert_layer_period layers"), ((0, 2), "no attention layer is left")),
    no_permute=("w",),
)  # fmt: skip
ROWS["jamba@dense"] = Row(
    config={
        **_JAMBA, "num_experts": 1, "num_attention_heads": 5, "num_key_value_heads": 5,
        "mamba_dt_rank": "auto", "mamba_proj_bias": True, "mamba_conv_bias": False, "tie_word_embeddings": True,
    },
    cuts=({"hidden": 20}, {"kv_heads": 3}, {"head_dim": 6}),
    combined={"hidden": 20, "ssm_channels": 20, "ffn": 40},
    drops=((0, 1, 3), (1, 2)),
    no_permute=("w",),
)  # fmt: skip

_ZAMBA2_TYPES = ["linear_attention", "hybrid", "linear_attention", "hybrid", "hybrid", "linear_attention", "hybrid"]
_ZAMBA2 = dict(
    hidden_size=48, layers_block_type=_ZAMBA2_TYPES, num_hidden_layers=7, mamba_d_state=14, mamba_expand=2,
    mamba_ngroups=2, n_mamba_heads=12, chunk_size=8, intermediate_size=52, num_attention_heads=6, num_mem_blocks=2,
    adapter_rank=7, max_position_embeddings=128,
)  # fmt: skip
ROWS["zamba2"] = Row(
    config=dict(**_ZAMBA2, use_shared_attention_adapter=True, use_mem_rope=True),
    cuts=(
        {"ssm_heads": 6}, {"ssm_head_dim": 4}, {"ssm_state": 10}, {"ssm_groups": 1}, {"ffn": 40}, {"adapter_rank": 4},
        {"hidden": 24, "kv_heads": 3},
    ),
    combined={"hidden": 24, "kv_heads": 3, "ssm_heads": 6, "ssm_state": 10, "ffn": 40, "adapter_rank": 4},
    refused=(
        ({"hidden": 24}, "adapters"), ({"kv_heads": 3}, "adapters"), ({"head_dim": 8}, "rotary"),
        ({"ssm_heads": 8}, "mamba_expand"),
    ),
    drops=((0, 1, 2, 3, 5), (0, 2, 4, 5, 6), (0, 1, 2, 5, 6), (2, 4, 6)),
    refused_drops=(
        ((0, 1, 2, 4, 5, 6), "shared block"), ((0, 1, 2), "keep at least 2"), ((0, 2, 5), "keep at least 2"),
    ),
    eps_fields=("rms_norm_eps",), eps_in_code=True, no_permute=("w", "e"),
)  # fmt: skip
ROWS["zamba2@free_heads"] = Row(
    config=dict(
        **_ZAMBA2, use_shared_attention_adapter=False, use_mem_rope=False, add_bias_linear=True, num_key_value_heads=3,
    ),
    cuts=({"hidden": 32}, {"kv_heads": 2}, {"q_per_kv": 1}, {"head_dim": 10}),
    combined={"hidden": 32, "ssm_heads": 8, "kv_heads": 2, "head_dim": 10, "ffn": 40, "adapter_rank": 4},
    drops=((0, 1, 2, 3, 5), (2, 4, 6)),
    eps_fields=("rms_norm_eps",), eps_in_code=True, no_permute=("w",),
)  # fmt: skip
