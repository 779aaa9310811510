"""Falcon-H1 (arXiv 2507.22448): rotary attention and Mamba-2 read the same input side by side in every layer.

The multipliers of the maximal-update parametrisation are scalars, or vectors rebuilt from the config: nothing to cut.
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
    ROPE,
    attention,
    attention_biases,
    glu,
    glu_biases,
    under,
    when,
)
from secateur.anatomy.family import Block, Family, Slot
from secateur.anatomy.selectors import Always

_MAMBA = (
    MAMBA2
    | {"norm.weight": "(g [h p]) if mamba_rms_norm"}
    | when("mamba_conv_bias", MAMBA2_CONV_BIAS)
    | {"in_proj.bias": f"{MAMBA2_BIASES['in_proj.bias']} if mamba_proj_bias", "out_proj.bias": "d if projectors_bias"}
)
_ATTENTION = attention() | when("attention_bias", attention_biases())
_MLP = glu() | when("mlp_bias", glu_biases())

FAMILY = Family(
    model_type="falcon_h1",
    architecture="FalconH1ForCausalLM",
    fields="hidden_size=d vocab_size=v mamba_n_groups=g mamba_n_heads=g*h mamba_d_head=p mamba_d_ssm=g*h*p "
    "mamba_d_state=n mamba_d_conv=w intermediate_size=f num_key_value_heads=k num_attention_heads=k*r "
    "head_dim=e head_dim=c",
    fallback=HEAD_DIM,
    stem={"embed_tokens.weight": "v d", "final_layernorm.weight": "[d]"},
    head=HEAD,
    every_layer={"input_layernorm.weight": "[d]", "pre_ff_layernorm.weight": "[d]"},
    slots=(
        Slot("attention", Always("attention"), {"attention": Block(under("self_attn.", _ATTENTION), ATTENTION_CACHE)}),
        Slot("ssm", Always("mamba"), {"mamba": Block(under("mamba.", _MAMBA), MAMBA2_CACHE)}),
        Slot("ffn", Always("mlp"), {"mlp": Block(under("feed_forward.", _MLP))}),
    ),
    fixed=ROPE,
    ignored={
        r".*\.rotary_emb\.inv_freq": "recomputed from the config",
        r".*\.mup_vector": "recomputed from the config",
    },
    advice=MAMBA2_ADVICE,
)
