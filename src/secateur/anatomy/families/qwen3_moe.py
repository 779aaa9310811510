"""Qwen3 MoE (arXiv 2505.09388): Qwen3's attention; a mixture of experts except in layers the config lists as dense."""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    HEAD,
    HEAD_DIM,
    KERNEL_FE,
    PRE_NORMS,
    ROPE,
    TOP_K,
    WINDOW_CACHE,
    attention,
    attention_biases,
    experts,
    glu,
    qk_norm,
    under,
    when,
)
from secateur.anatomy.family import Block, Family, Slot
from secateur.anatomy.selectors import Always, Sparse

_ATTENTION = under("self_attn.", attention() | qk_norm() | when("attention_bias", attention_biases()))

FAMILY = Family(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    fields="hidden_size=d vocab_size=v intermediate_size=f moe_intermediate_size=fe num_experts=E "
    "num_key_value_heads=k num_attention_heads=k*r head_dim=e head_dim=c",
    fallback=HEAD_DIM,
    stem={"embed_tokens.weight": "v d", "norm.weight": "[d]"},
    head=HEAD,
    every_layer=PRE_NORMS,
    slots=(
        Slot("mixer", Always("attention"), {"attention": Block(_ATTENTION, WINDOW_CACHE)}),
        Slot(
            "ffn",
            Sparse(),
            {
                "dense": Block(under("mlp.", glu())),
                "moe": Block(under("mlp.", {"gate.weight": "E d"} | experts())),
            },
        ),
    ),
    rules=(TOP_K,),
    fixed=ROPE,
    advice=(KERNEL_FE,),
)
