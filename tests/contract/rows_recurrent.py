"""Gated-delta, short-convolution and gated linear recurrence hybrids."""

from __future__ import annotations

from .row import Row

ROWS: dict[str, Row] = {}
_ROPE = ({"head_dim": 8}, "rotary")
ROWS["qwen3_next"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=3,
        head_dim=16, linear_key_head_dim=10, linear_value_head_dim=12, linear_num_key_heads=2,
        linear_num_value_heads=6, moe_intermediate_size=20, shared_expert_intermediate_size=24, num_experts=5,
        num_experts_per_tok=2, mlp_only_layers=[2], max_position_embeddings=128,
        layer_types=["linear_attention", "full_attention", "linear_attention", "linear_attention"],
    ),
    cuts=(
        {"hidden": 32}, {"delta_key_heads": 1}, {"delta_v_per_key": 2}, {"delta_key_dim": 6}, {"delta_value_dim": 8},
        {"ffn": 36}, {"expert_ffn": 12}, {"shared_ffn": 16}, {"experts": 3}, {"kv_heads": 2}, {"q_per_kv": 1},
    ),
    combined={
        "hidden": 32, "delta_v_per_key": 2, "delta_key_dim": 6, "delta_value_dim": 8, "ffn": 36, "expert_ffn": 12,
        "shared_ffn": 16, "experts": 3, "kv_heads": 2,
    },
    refused=(_ROPE, ({"experts": 1}, "num_experts_per_tok")),
    drops=((0, 1, 3), (1, 2), (1,)),
    refused_drops=(((0, 2, 3), "attention"),),
    no_permute=("e", "w"),
)  # fmt: skip
ROWS["qwen3_next@tied_bias_step"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=5, num_attention_heads=6, num_key_value_heads=3,
        head_dim=16, linear_key_head_dim=10, linear_value_head_dim=12, linear_num_key_heads=2,
        linear_num_value_heads=6, moe_intermediate_size=20, shared_expert_intermediate_size=24, num_experts=5,
        num_experts_per_tok=2, decoder_sparse_step=2, max_position_embeddings=128, attention_bias=True,
        tie_word_embeddings=True,
    ),
    absent=("layer_types", "mlp_only_layers"),
    cuts=({"hidden": 32}, {"q_per_kv": 1}),
    drops=((1, 2, 3, 4),),
    no_permute=("e", "w"),
)  # fmt: skip
ROWS["qwen3_5_text"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=3,
        head_dim=16, linear_key_head_dim=10, linear_value_head_dim=12, linear_num_key_heads=2,
        linear_num_value_heads=6, max_position_embeddings=128,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
    ),
    cuts=(
        {"hidden": 32}, {"delta_key_heads": 1}, {"delta_v_per_key": 2}, {"delta_key_dim": 6}, {"delta_value_dim": 8},
        {"ffn": 36}, {"kv_heads": 2}, {"q_per_kv": 1},
    ),
    combined={
        "hidden": 32, "delta_v_per_key": 2, "delta_key_dim": 6, "delta_value_dim": 8, "ffn": 36, "kv_heads": 2,
    },
    refused=(_ROPE,),
    drops=((1, 2), (1,)),
    refused_drops=(((0, 2), "attention"),),
    no_permute=("e", "w"),
)  # fmt: skip
ROWS["qwen3_5_text@tied_bias"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=3,
        head_dim=16, linear_key_head_dim=10, linear_value_head_dim=12, linear_num_key_heads=2,
        linear_num_value_heads=6, max_position_embeddings=128, attention_bias=True, tie_word_embeddings=True,
    ),
    absent=("layer_types",),
    cuts=({"hidden": 32}, {"q_per_kv": 1}),
    drops=((0, 3),),
    no_permute=("e", "w"),
)  # fmt: skip
_OLMO = dict(
    hidden_size=40, intermediate_size=52, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
    linear_num_key_heads=3, linear_num_value_heads=6, linear_key_head_dim=12, linear_value_head_dim=6,
    pad_token_id=0, eos_token_id=1, max_position_embeddings=128,
)  # fmt: skip
ROWS["olmo_hybrid"] = Row(
    config=_OLMO | dict(layer_types=["linear_attention", "full_attention", "linear_attention", "full_attention"]),
    cuts=(
        {"hidden": 32}, {"delta_key_heads": 2}, {"delta_v_per_key": 1}, {"delta_key_dim": 7}, {"delta_value_dim": 5},
        {"ffn": 36}, {"kv_heads": 1}, {"q_per_kv": 1},
    ),
    combined={
        "hidden": 32, "delta_key_heads": 2, "delta_key_dim": 7, "delta_value_dim": 5, "ffn": 36, "kv_heads": 1,
    },
    refused=(_ROPE,),
    drops=((0, 1), (1, 2, 3)),
    refused_drops=(((0, 2), "attention"), ((1, 3), "delta")),
    eps_in_code=True,
    no_permute=("e", "w"),
)  # fmt: skip
ROWS["olmo_hybrid@no_rope_tied_bias"] = Row(
    config=_OLMO | dict(
        rope_parameters={"rope_theta": None, "rope_type": "default"}, attention_bias=True, tie_word_embeddings=True
    ),
    absent=("layer_types", "head_dim"),
    cuts=({"hidden": 32}, {"head_dim": 6}, {"q_per_kv": 1}),
    combined={"hidden": 32, "head_dim": 6, "kv_heads": 1},
    drops=((1, 2, 3),),
    eps_in_code=True,
    no_permute=("w",),
)  # fmt: skip
_KIMI = dict(
    hidden_size=40, intermediate_size=52, moe_intermediate_size=20, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=4, kv_lora_rank=11, qk_rope_head_dim=6, qk_nope_head_dim=8, v_head_dim=9, num_experts=6,
    num_experts_per_tok=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
ROWS["kimi_linear"] = Row(
    config=_KIMI | dict(
        linear_head_dim=10, linear_num_heads=3,
        layer_types=["linear_attention", "full_attention", "linear_attention", "full_attention"],
    ),
    cuts=(
        {"hidden": 32}, {"delta_key_heads": 2}, {"delta_key_dim": 7}, {"ffn": 36}, {"expert_ffn": 12}, {"experts": 3},
        {"mla_heads": 3}, {"mla_kv_rank": 7}, {"mla_nope_dim": 5}, {"mla_rope_dim": 4}, {"mla_value_dim": 5},
    ),
    combined={
        "hidden": 32, "delta_key_heads": 2, "delta_key_dim": 7, "ffn": 36, "expert_ffn": 12, "experts": 4,
        "mla_heads": 3, "mla_kv_rank": 7, "mla_nope_dim": 5, "mla_rope_dim": 4, "mla_value_dim": 5,
    },
    refused=(({"experts": 1}, "num_experts_per_tok"),),
    drops=((0, 1, 2), (1, 2), (3,)),
    refused_drops=(((0, 2), "latent"),),
    eps_in_code=True,
    no_permute=("w",),
)  # fmt: skip
ROWS["kimi_linear@hub_config"] = Row(
    config=_KIMI | dict(
        q_lora_rank=13, attention_bias=True, num_shared_experts=2, first_k_dense_replace=2, num_expert_group=3,
        topk_group=2, head_dim=10, tie_word_embeddings=True,
        linear_attn_config=dict(
            head_dim=10, num_heads=3, short_conv_kernel_size=4, kda_layers=[1, 3], full_attn_layers=[2, 4]
        ),
    ),
    absent=("layer_types", "mlp_layer_types", "linear_head_dim", "linear_num_heads", "linear_conv_kernel_dim"),
    cuts=(
        {"hidden": 32}, {"delta_key_heads": 2}, {"delta_key_dim": 7}, {"mla_q_rank": 8}, {"mla_rope_dim": 4},
        {"expert_ffn": 12},
    ),
    combined={"hidden": 32, "delta_key_heads": 2, "delta_key_dim": 7, "mla_q_rank": 8, "mla_nope_dim": 5},
    refused=(({"experts": 3}, "group-limited"),),
    drops=((0, 1, 2), (1, 2), (3,)),
    refused_drops=(((0, 2), "latent"),),
    eps_in_code=True,
    no_permute=("w", "E"),
)  # fmt: skip
ROWS["lfm2"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=3,
        head_dim=8, block_auto_adjust_ff_dim=False, layer_types=["conv", "full_attention", "conv", "conv"],
        conv_bias=True, max_position_embeddings=128,
    ),
    cuts=({"hidden": 32}, {"conv_channels": 32}, {"ffn": 36}, {"kv_heads": 2}, {"q_per_kv": 1}),
    combined={"hidden": 32, "ffn": 36, "kv_heads": 2},
    refused=(({"head_dim": 6}, "rotary"),),
    drops=((0, 1, 3), (1, 2), (1,)),
    refused_drops=(((0, 2, 3), "attention"),),
    no_permute=("e", "w"),
)  # fmt: skip
ROWS["lfm2@hub_config"] = Row(
    config=dict(
        hidden_size=40, block_dim=40, conv_dim=40, conv_dim_out=40, block_ff_dim=90, block_multiple_of=16,
        block_ffn_dim_multiplier=0.9, num_hidden_layers=4, num_attention_heads=5, num_heads=5, num_key_value_heads=5,
        full_attn_idxs=[1, 3], max_position_embeddings=128, tie_embedding=False,
    ),
    absent=("layer_types", "intermediate_size", "head_dim", "tie_word_embeddings"),
    present={"block_ff_dim": 90, "tie_embedding": False},
    cuts=({"hidden": 32}, {"ffn": 40}, {"kv_heads": 4}),
    combined={"hidden": 32, "ffn": 40, "kv_heads": 4},
    drops=((0, 1, 2), (2, 3)),
    refused_drops=(((0, 2), "attention"),),
    no_permute=("e", "w"),
)  # fmt: skip
_GEMMA = dict(
    hidden_size=40, intermediate_size=104, num_attention_heads=6, num_key_value_heads=2, lru_width=72,
    attention_window_size=7,
)  # fmt: skip
ROWS["recurrent_gemma"] = Row(
    config=_GEMMA | dict(
        num_hidden_layers=4, head_dim=10, block_types=["recurrent", "attention", "recurrent", "recurrent"]
    ),
    cuts=(
        {"hidden": 32}, {"lru_block_dim": 8}, {"ffn": 36}, {"lru_blocks": 4, "q_per_kv": 2},
        {"lru_blocks": 3, "kv_heads": 1},
    ),
    combined={"hidden": 32, "lru_blocks": 4, "q_per_kv": 2, "lru_block_dim": 8, "ffn": 36},
    refused=(
        ({"head_dim": 8}, "rotary"), ({"lru_blocks": 4}, "num_attention_heads"),
        ({"q_per_kv": 2}, "num_attention_heads"),
    ),
    drops=((0, 1, 3), (1, 2), (1,)),
    refused_drops=(((0, 2), "attention"),),
    no_permute=("e", "w"),
)  # fmt: skip
ROWS["recurrent_gemma@cycle_untied_bias"] = Row(
    config=_GEMMA | dict(
        hidden_size=48, lru_width=None, num_hidden_layers=5, tie_word_embeddings=False, attention_bias=True
    ),
    absent=("head_dim", "lru_width", "block_types"),
    cuts=({"hidden": 30}, {"lru_block_dim": 6}),
    drops=((0, 1, 2), (1, 2, 3), (0, 2)),
    refused_drops=(((0, 1, 3, 4), "attention"),),
    no_permute=("e", "w"),
)  # fmt: skip
