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
_ROPE = ({"head_dim": 8}, "rotary")
ROWS["mistral"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=3,
        head_dim=16, max_position_embeddings=128, sliding_window=7,
    ),
    cuts=({"hidden": 32}, {"ffn": 40}, {"kv_heads": 2}, {"q_per_kv": 1}),
    combined={"hidden": 32, "ffn": 40, "kv_heads": 2, "q_per_kv": 1},
    refused=(_ROPE,),
    drops=((0, 2), (1,)),
    no_permute=("e",),
)  # fmt: skip
ROWS["mistral@tied_no_window"] = Row(
    config=dict(
        hidden_size=48, intermediate_size=52, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=3,
        max_position_embeddings=128, sliding_window=None, tie_word_embeddings=True,
    ),
    absent=("head_dim",),
    cuts=({"hidden": 32}, {"q_per_kv": 1}),
    drops=((1,),),
    no_permute=("e",),
)  # fmt: skip
ROWS["qwen3"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=3,
        head_dim=16, max_position_embeddings=128,
    ),
    cuts=({"hidden": 32}, {"ffn": 40}, {"kv_heads": 2}, {"q_per_kv": 1}),
    combined={"hidden": 32, "ffn": 40, "kv_heads": 2, "q_per_kv": 1},
    refused=(_ROPE,),
    drops=((0, 2), (1,)),
    no_permute=("e",),
)  # fmt: skip
ROWS["qwen3@bias_tied_window"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=3,
        head_dim=16, max_position_embeddings=128, attention_bias=True, tie_word_embeddings=True,
        use_sliding_window=True, sliding_window=7, max_window_layers=1,
    ),
    absent=("layer_types",),
    cuts=({"hidden": 32}, {"kv_heads": 2}, {"q_per_kv": 1}),
    drops=((0, 2), (1, 2)),
    no_permute=("e",),
)  # fmt: skip
ROWS["gemma3_text"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, max_position_embeddings=128, query_pre_attn_scalar=16, sliding_window=7,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    cuts=({"hidden": 32}, {"ffn": 40}, {"kv_heads": 1}, {"q_per_kv": 1}),
    combined={"hidden": 32, "ffn": 40, "kv_heads": 1},
    refused=(_ROPE, ({"hidden": 38}, "multiple of num_attention_heads")),
    drops=((0, 2), (1,)),
    no_permute=("e",),
)  # fmt: skip
ROWS["gemma3_text@untied_bias"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=7, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, max_position_embeddings=128, query_pre_attn_scalar=16, sliding_window=7,
        tie_word_embeddings=False, attention_bias=True,
    ),
    absent=("layer_types",),
    cuts=({"hidden": 32},),
    drops=((1, 2, 3, 4, 6),),
    no_permute=("e",),
)  # fmt: skip
ROWS["mixtral"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=3,
        head_dim=16, num_local_experts=5, num_experts_per_tok=2, max_position_embeddings=128,
    ),
    cuts=({"hidden": 32}, {"expert_ffn": 40}, {"experts": 3}, {"kv_heads": 2}, {"q_per_kv": 1}),
    combined={"hidden": 32, "expert_ffn": 40, "experts": 3, "kv_heads": 2, "q_per_kv": 1},
    refused=(_ROPE, ({"experts": 1}, "num_experts_per_tok")),
    drops=((1,), (0,)),
    no_permute=("e",),
)  # fmt: skip
ROWS["mixtral@implied_head_dim"] = Row(
    config=dict(
        hidden_size=48, intermediate_size=52, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=3,
        num_local_experts=5, num_experts_per_tok=2, max_position_embeddings=128, sliding_window=7,
        tie_word_embeddings=True,
    ),
    absent=("head_dim",),
    cuts=({"hidden": 32}, {"q_per_kv": 1}),
    no_permute=("e",),
)  # fmt: skip
ROWS["qwen3_moe"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, moe_intermediate_size=20, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=3, head_dim=16, num_experts=5, num_experts_per_tok=2, norm_topk_prob=True,
        mlp_only_layers=[0], max_position_embeddings=128,
    ),
    cuts=({"hidden": 32}, {"ffn": 40}, {"expert_ffn": 12}, {"experts": 3}, {"kv_heads": 2}, {"q_per_kv": 1}),
    combined={"hidden": 32, "ffn": 40, "expert_ffn": 12, "experts": 3, "kv_heads": 2, "q_per_kv": 1},
    refused=(_ROPE, ({"experts": 1}, "num_experts_per_tok")),
    drops=((0, 2), (1, 2), (0,)),
    no_permute=("e",),
)  # fmt: skip
ROWS["qwen3_moe@step_bias_window"] = Row(
    config=dict(
        hidden_size=48, intermediate_size=52, moe_intermediate_size=20, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=3, num_experts=5, num_experts_per_tok=2, decoder_sparse_step=2, attention_bias=True,
        tie_word_embeddings=True, use_sliding_window=True, sliding_window=7, max_position_embeddings=128,
    ),
    absent=("head_dim", "mlp_only_layers"),
    cuts=({"hidden": 32}, {"experts": 3}, {"q_per_kv": 1}),
    drops=((0, 2, 3), (1, 3)),
    no_permute=("e",),
)  # fmt: skip
ROWS["gpt_oss"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=3,
        head_dim=16, num_local_experts=5, num_experts_per_tok=2, max_position_embeddings=128, sliding_window=7,
    ),
    cuts=({"hidden": 32}, {"expert_ffn": 40}, {"experts": 3}, {"kv_heads": 2}, {"q_per_kv": 1}),
    combined={"hidden": 32, "expert_ffn": 40, "experts": 3, "kv_heads": 2, "q_per_kv": 1},
    refused=(_ROPE, ({"experts": 1}, "num_experts_per_tok")),
    drops=((0, 2), (1,)),
    no_permute=("e",),
)  # fmt: skip
ROWS["gpt_oss@no_bias_tied"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=3,
        head_dim=16, num_local_experts=5, num_experts_per_tok=2, max_position_embeddings=128, attention_bias=False,
        tie_word_embeddings=True,
    ),
    cuts=({"hidden": 32}, {"q_per_kv": 1}),
    no_permute=("e",),
)  # fmt: skip
ROWS["olmoe"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        num_experts=5, num_experts_per_tok=2, max_position_embeddings=128, eos_token_id=1,
    ),
    cuts=({"expert_ffn": 36}, {"experts": 3}, {"hidden": 20, "kv_heads": 1}, {"hidden": 20, "q_per_kv": 1}),
    combined={"hidden": 20, "kv_heads": 1, "expert_ffn": 36, "experts": 3},
    refused=(
        _ROPE, ({"hidden": 32}, "hidden_size"), ({"kv_heads": 1}, "hidden_size"), ({"q_per_kv": 1}, "hidden_size"),
    ),
    drops=((1,), (0,)),
    no_permute=("e",),
)  # fmt: skip
ROWS["olmoe@bias_clip"] = Row(
    config=dict(
        hidden_size=40, intermediate_size=52, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        num_experts=5, num_experts_per_tok=2, max_position_embeddings=128, eos_token_id=1, attention_bias=True,
        clip_qkv=1.5, tie_word_embeddings=True,
    ),
    cuts=({"hidden": 20, "kv_heads": 1},),
    no_permute=("e",),
)  # fmt: skip
_LAYER_NORM = {"hidden": "LayerNorm subtracts a mean that changes with the width"}
ROWS["gpt2"] = Row(
    config=dict(
        n_embd=40, n_inner=52, n_layer=3, n_head=5, n_positions=64, bos_token_id=0, eos_token_id=0, pad_token_id=0
    ),
    cuts=({"ffn": 36}, {"hidden": 32, "kv_heads": 4}),
    combined={"hidden": 24, "kv_heads": 3, "ffn": 36},
    refused=(
        ({"hidden": 32}, "n_embd"), ({"kv_heads": 4}, "n_embd"), ({"head_dim": 4}, "queries share"),
    ),
    drops=((0, 2), (1,)),
    inexact=_LAYER_NORM,
)  # fmt: skip
ROWS["gpt2@implied_ffn_untied"] = Row(
    config=dict(
        n_embd=40, n_layer=2, n_head=5, n_positions=64, bos_token_id=0, eos_token_id=0, tie_word_embeddings=False
    ),
    absent=("n_inner",),
    cuts=({"ffn": 36}, {"hidden": 32, "kv_heads": 4}),
    drops=((1,),),
    inexact=_LAYER_NORM,
)  # fmt: skip
ROWS["opt"] = Row(
    config=dict(
        hidden_size=40, ffn_dim=52, num_hidden_layers=3, num_attention_heads=5, max_position_embeddings=64,
        word_embed_proj_dim=24,
    ),
    cuts=({"ffn": 36}, {"embed_dim": 16}, {"hidden": 32, "kv_heads": 4}, {"hidden": 20, "head_dim": 4}),
    combined={"hidden": 32, "kv_heads": 4, "ffn": 36, "embed_dim": 16},
    refused=(
        ({"hidden": 32}, "hidden_size"), ({"kv_heads": 4}, "hidden_size"), ({"head_dim": 4}, "hidden_size"),
        ({"hidden": 24, "kv_heads": 3}, "projections"),
    ),
    drops=((0, 2), (1,)),
    inexact=_LAYER_NORM,
)  # fmt: skip
ROWS["opt@same_width"] = Row(
    config=dict(hidden_size=40, ffn_dim=52, num_hidden_layers=2, num_attention_heads=5, max_position_embeddings=64),
    absent=("word_embed_proj_dim",),
    cuts=({"ffn": 36}, {"hidden": 32, "kv_heads": 4}),
    inexact=_LAYER_NORM,
)  # fmt: skip
ROWS["opt@post_norm_untied"] = Row(
    config=dict(
        hidden_size=40, ffn_dim=52, num_hidden_layers=2, num_attention_heads=5, max_position_embeddings=64,
        word_embed_proj_dim=24, do_layer_norm_before=False, enable_bias=False, layer_norm_elementwise_affine=False,
        tie_word_embeddings=False,
    ),
    cuts=({"ffn": 36}, {"embed_dim": 16}, {"hidden": 32, "kv_heads": 4}),
    inexact=_LAYER_NORM,
)  # fmt: skip
