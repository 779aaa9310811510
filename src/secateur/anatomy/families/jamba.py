"""Jamba (arXiv 2403.19887): Mamba-1 with norms on dt, B and C, attention without positions, MLP or routed experts.

Layers are listed by two (period, offset) pairs; one field sizes the dense MLP and the experts.
"""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    ATTENTION_CACHE,
    HEAD,
    HEAD_DIM,
    MAMBA1,
    MAMBA1_BIASES,
    MAMBA1_CACHE,
    MAMBA1_CONV_BIAS,
    TOP_K,
    attention,
    experts,
    glu,
    under,
    when,
)
from secateur.anatomy.family import Advice, Block, Family, Rule, Slot
from secateur.anatomy.selectors import Period

_MAMBA = (
    MAMBA1
    | {"dt_layernorm.weight": "[t]", "b_layernorm.weight": "[n]", "c_layernorm.weight": "[n]"}
    | when("mamba_conv_bias", MAMBA1_CONV_BIAS)
    | when("mamba_proj_bias", MAMBA1_BIASES)
)

FAMILY = Family(
    model_type="jamba",
    architecture="JambaForCausalLM",
    fields="hidden_size=d vocab_size=v mamba_d_state=n mamba_dt_rank=t mamba_d_conv=w intermediate_size=f "
    "intermediate_size=fe num_experts=E num_key_value_heads=k num_attention_heads=k*r head_dim=e head_dim=c",
    fallback=HEAD_DIM | {"c1": "mamba_expand*d"},
    stem={"embed_tokens.weight": "v d", "final_layernorm.weight": "[d]"},
    head=HEAD,
    every_layer={"input_layernorm.weight": "[d]", "pre_ff_layernorm.weight": "[d]"},
    slots=(
        Slot(
            "mixer",
            Period("attn_layer_period", "attn_layer_offset", "attention", "mamba"),
            {
                "mamba": Block(under("mamba.", _MAMBA), MAMBA1_CACHE),
                "attention": Block(under("self_attn.", attention()), ATTENTION_CACHE),
            },
        ),
        Slot(
            "ffn",
            Period("expert_layer_period", "expert_layer_offset", "moe", "mlp", needs="num_experts"),
            {
                "mlp": Block(under("feed_forward.", glu())),
                "moe": Block(under("feed_forward.", {"router.weight": "E d"} | experts())),
            },
        ),
    ),
    derived={"mamba_expand": "c1 / d"},
    # attention carries no positions, so any channels may go; the 1/sqrt(head_dim) scale follows the config
    rescale={"self_attn.q_proj.weight": "e**0.5"},
    rules=(
        TOP_K,
        Rule("E > 1", "one expert would turn the layer into a dense one"),
    ),
    needs=("attention",),
    advice=(
        Advice("vLLM, llama.cpp", "e * k*r == d", "they take head_dim to be hidden / attention heads"),
        Advice("llama.cpp", "c1 == 2*d", "it expects twice as many inner channels as hidden channels"),
    ),
)
