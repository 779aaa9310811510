"""Bamba (hf.co/blog/bamba): Mamba-2 layers with a few rotary attention layers, gated MLP after each."""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    ATTENTION_CACHE,
    HEAD,
    HEAD_DIM,
    MAMBA2,
    MAMBA2_ADVICE,
    MAMBA2_BIASES,
    MAMBA2_CACHE,
    MAMBA2_CONV_BIAS,
    ROPE,
    attention,
    attention_biases,
    glu,
    glu_biases,
    under,
    when,
)
from secateur.anatomy.family import Advice, Block, Family, Slot
from secateur.anatomy.selectors import Always, IndexList

_MAMBA = MAMBA2 | when("mamba_conv_bias", MAMBA2_CONV_BIAS) | when("mamba_proj_bias", MAMBA2_BIASES)
_ATTENTION = attention() | when("attention_bias", attention_biases())
_MLP = glu() | when("mlp_bias", glu_biases())

FAMILY = Family(
    model_type="bamba",
    architecture="BambaForCausalLM",
    fields="hidden_size=d vocab_size=v mamba_n_groups=g mamba_n_heads=g*h mamba_d_head=p mamba_d_state=n "
    "mamba_d_conv=w intermediate_size=f num_key_value_heads=k num_attention_heads=k*r head_dim=e head_dim=c",
    fallback=HEAD_DIM,
    stem={"embed_tokens.weight": "v d", "final_layernorm.weight": "[d]"},
    head=HEAD,
    every_layer={"input_layernorm.weight": "[d]", "pre_ff_layernorm.weight": "[d]"},
    slots=(
        Slot(
            "mixer",
            IndexList("attn_layer_indices", "attention", "mamba"),
            {
                "mamba": Block(under("mamba.", _MAMBA), MAMBA2_CACHE),
                "attention": Block(under("self_attn.", _ATTENTION), ATTENTION_CACHE),
            },
        ),
        Slot("ffn", Always("mlp"), {"mlp": Block(under("feed_forward.", _MLP))}),
    ),
    derived={"mamba_expand": "g*h*p / d"},
    fixed=ROPE,
    needs=("attention",),
    ignored={r".*\.rotary_emb\.inv_freq": "recomputed from the config"},
    advice=(
        *MAMBA2_ADVICE,
        Advice("llama.cpp", "e * k*r == d", "it takes head_dim to be hidden / attention heads"),
    ),
)
