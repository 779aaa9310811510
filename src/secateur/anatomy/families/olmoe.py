"""OLMoE (arXiv 2409.02060): mixture of experts; one norm over all queries and one over all keys."""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    ATTENTION_CACHE,
    HEAD,
    KERNEL_FE,
    PRE_NORMS,
    ROPE,
    TOP_K,
    attention,
    attention_biases,
    experts,
    under,
    when,
)
from secateur.anatomy.family import Advice, Block, Family, Slot
from secateur.anatomy.selectors import Always

_ATTENTION = (
    attention() | {"q_norm.weight": "[k r e]", "k_norm.weight": "[k e]"} | when("attention_bias", attention_biases())
)

FAMILY = Family(
    model_type="olmoe",
    architecture="OlmoeForCausalLM",
    # the norm over all queries is hidden_size wide, so no extra key can free head_dim
    fields="hidden_size=d vocab_size=v num_key_value_heads=k num_attention_heads=k*r hidden_size=k*r*e "
    "intermediate_size=fe num_experts=E",
    fallback={"c": "e"},
    stem={"embed_tokens.weight": "v d", "norm.weight": "[d]"},
    head=HEAD,
    every_layer=PRE_NORMS,
    slots=(
        Slot("mixer", Always("attention"), {"attention": Block(under("self_attn.", _ATTENTION), ATTENTION_CACHE)}),
        Slot("ffn", Always("moe"), {"moe": Block(under("mlp.", {"gate.weight": "E d"} | experts()))}),
    ),
    rules=(TOP_K,),
    fixed=ROPE,
    advice=(
        KERNEL_FE,
        Advice("llama.cpp", "r == 1", "its norm over all keys is as wide as the one over all queries"),
    ),
)
