"""Llama (arXiv 2302.13971)."""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    ATTENTION_CACHE,
    HEAD,
    ROPE,
    attention,
    attention_biases,
    glu,
    glu_biases,
    under,
    when,
)
from secateur.anatomy.family import Block, Family, Rule, Slot
from secateur.anatomy.selectors import Always

FAMILY = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    fields="hidden_size=d vocab_size=v intermediate_size=f num_key_value_heads=k num_attention_heads=k*r "
    "head_dim=e head_dim=c",
    stem={"embed_tokens.weight": "v d", "norm.weight": "[d]"},
    head=HEAD,
    every_layer={"input_layernorm.weight": "[d]", "post_attention_layernorm.weight": "[d]"},
    slots=(
        Slot(
            "mixer",
            Always("attention"),
            {
                "attention": Block(
                    under("self_attn.", attention() | when("attention_bias", attention_biases())), ATTENTION_CACHE
                )
            },
        ),
        Slot("ffn", Always("mlp"), {"mlp": Block(under("mlp.", glu() | when("mlp_bias", glu_biases())))}),
    ),
    rules=(Rule("d % (k*r) == 0", "the config class wants hidden_size to be a multiple of num_attention_heads"),),
    fixed=ROPE,
    ignored={r".*\.rotary_emb\.inv_freq": "recomputed from the config"},
)
