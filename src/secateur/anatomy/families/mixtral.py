"""Mixtral (arXiv 2401.04088): Mistral's attention with a mixture of experts in every layer."""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    HEAD,
    HEAD_DIM,
    PRE_NORMS,
    ROPE,
    TOP_K,
    WINDOW_CACHE,
    attention,
    experts,
    under,
)
from secateur.anatomy.family import Block, Family, Slot
from secateur.anatomy.selectors import Always

_MOE = under("block_sparse_moe.", {"gate.weight": "E d"} | experts(names="w1 w3 w2"))

FAMILY = Family(
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    fields="hidden_size=d vocab_size=v intermediate_size=fe num_local_experts=E num_key_value_heads=k "
    "num_attention_heads=k*r head_dim=e head_dim=c",
    fallback=HEAD_DIM,
    stem={"embed_tokens.weight": "v d", "norm.weight": "[d]"},
    head=HEAD,
    every_layer=PRE_NORMS,
    slots=(
        Slot("mixer", Always("attention"), {"attention": Block(under("self_attn.", attention()), WINDOW_CACHE)}),
        Slot("ffn", Always("moe"), {"moe": Block(_MOE)}),
    ),
    rules=(TOP_K,),
    fixed=ROPE,
)
