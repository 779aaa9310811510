"""Granite 4 (GraniteMoeHybrid): Mamba-2 or attention, then routed experts beside a shared gated MLP.

``num_local_experts: 0`` says that no layer has routed experts. Multipliers are scalars; the attention scale is one of
them, so fewer channels in a head need no correction.
"""

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
    attention,
    attention_biases,
    under,
    when,
)
from secateur.anatomy.family import Advice, Block, Family, Fixed, Rule, Slot
from secateur.anatomy.selectors import Always, TypeList

_MAMBA = MAMBA2 | when("mamba_conv_bias", MAMBA2_CONV_BIAS) | when("mamba_proj_bias", MAMBA2_BIASES)
_ATTENTION = attention() | when("attention_bias", attention_biases())
_ROUTED = {
    "router.layer.weight": "E d",
    "input_linear.weight": "E (gate:fe + up:fe) d",
    "output_linear.weight": "E d fe",
}
_SHARED = {"input_linear.weight": "(gate:fs + up:fs) d", "output_linear.weight": "d fs"}
_ROTARY = "position_embedding_type == 'rope'"
_NO_MAMBA = "'linear_attention' not in layer_types"

FAMILY = Family(
    model_type="granitemoehybrid",
    architecture="GraniteMoeHybridForCausalLM",
    fields="hidden_size=d vocab_size=v mamba_n_groups=g mamba_n_heads=g*h mamba_d_head=p mamba_d_state=n "
    "mamba_d_conv=w num_key_value_heads=k num_attention_heads=k*r head_dim=e head_dim=c num_local_experts=E "
    "intermediate_size=fe shared_intermediate_size=fs",
    fallback=HEAD_DIM,
    stem={"embed_tokens.weight": "v d", "norm.weight": "[d]"},
    head=HEAD,
    every_layer={"input_layernorm.weight": "[d]", "post_attention_layernorm.weight": "[d]"},
    slots=(
        Slot(
            "mixer",
            TypeList(
                "layer_types",
                {
                    "linear_attention": "mamba",
                    "mamba": "mamba",
                    "full_attention": "attention",
                    "attention": "attention",
                },
                raw_keys=("layer_types", "layers_block_type"),
            ),
            {
                "mamba": Block(under("mamba.", _MAMBA), MAMBA2_CACHE),
                "attention": Block(under("self_attn.", _ATTENTION), ATTENTION_CACHE),
            },
        ),
        Slot(
            "ffn",
            Always("moe"),
            {
                "moe": Block(
                    under("block_sparse_moe.", when("num_local_experts > 0", _ROUTED)) | under("shared_mlp.", _SHARED)
                )
            },
        ),
    ),
    derived={"mamba_expand": "g*h*p / d"},
    # the config class checks these fields even where no layer is a Mamba layer
    stale={"mamba_d_head": f"mamba_expand*d // mamba_n_heads if {_NO_MAMBA}"},
    rules=(
        Rule("E == 0 or E >= num_experts_per_tok", "every token is sent to num_experts_per_tok experts"),
        Rule(
            f"not ({_NO_MAMBA}) or mamba_expand*d % mamba_n_heads == 0",
            "the config class wants mamba_expand * hidden to be a multiple of mamba_n_heads",
        ),
    ),
    fixed=(
        Fixed("e", "rotary embedding: the frequencies follow from head_dim", _ROTARY),
        Fixed("c", "the config has one field for the channels of keys and values", _ROTARY),
    ),
    may_be_zero=("E",),
    needs=("attention",),
    ignored={r".*\.rotary_emb\.inv_freq": "recomputed from the config"},
    advice=(
        *MAMBA2_ADVICE,
        Advice("vLLM, llama.cpp", "e * k*r == d", "they take head_dim to be hidden / attention heads"),
        Advice("llama.cpp", "g*h*p == 2*d", "it expects the SSM inner size to be twice the hidden size"),
        Advice(
            "llama.cpp",
            "E > 0 or fe == fs",
            "without routed experts intermediate_size must equal shared_intermediate_size",
        ),
    ),
)
