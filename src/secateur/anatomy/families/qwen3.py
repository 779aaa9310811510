"""Qwen3 (arXiv 2505.09388): Llama's layers with per-head norms of queries and keys."""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    ATTENTION_CACHE,
    HEAD,
    PRE_NORMS,
    ROPE,
    WINDOW_CACHE,
    attention,
    attention_biases,
    glu,
    qk_norm,
    under,
    when,
)
from secateur.anatomy.family import Block, Family, Slot
from secateur.anatomy.selectors import Always, TypeList

_ATTENTION = under("self_attn.", attention() | qk_norm() | when("attention_bias", attention_biases()))

FAMILY = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    fields="hidden_size=d vocab_size=v intermediate_size=f num_key_value_heads=k num_attention_heads=k*r "
    "head_dim=e head_dim=c",
    stem={"embed_tokens.weight": "v d", "norm.weight": "[d]"},
    head=HEAD,
    every_layer=PRE_NORMS,
    slots=(
        Slot(
            "mixer",
            TypeList("layer_types", {"full_attention": "attention", "sliding_attention": "sliding_attention"}),
            {
                "attention": Block(_ATTENTION, ATTENTION_CACHE),
                "sliding_attention": Block(_ATTENTION, WINDOW_CACHE),
            },
        ),
        Slot("ffn", Always("mlp"), {"mlp": Block(under("mlp.", glu()))}),
    ),
    fixed=ROPE,
)
