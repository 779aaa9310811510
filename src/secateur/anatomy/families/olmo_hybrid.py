"""OLMo Hybrid: gated delta rule (arXiv 2412.06464) with norms before, attention with norms after each sub-block.

Published files keep the three convolutions of a delta layer apart. Files written by transformers hold the joint
convolution cut into three equal pieces whatever the widths are, and another name for the norm behind attention; such
files are read when keys and values are equally wide.
"""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    ATTENTION_CACHE,
    DELTA_CACHE,
    DELTA_FIELDS,
    DELTA_SCALE,
    HEAD,
    HEAD_DIM,
    attention,
    attention_biases,
    glu,
    under,
    when,
)
from secateur.anatomy.family import Advice, Block, Family, Fixed, Slot
from secateur.anatomy.selectors import Always, TypeList

_DELTA = {
    "A_log": "(gk gr)",
    "dt_bias": "(gk gr)",
    "q_proj.weight": "(gk ek) d",
    "k_proj.weight": "(gk ek) d",
    "v_proj.weight": "(gk gr ev) d",
    "g_proj.weight": "(gk gr ev) d",
    "a_proj.weight": "(gk gr) d",
    "b_proj.weight": "(gk gr) d",
    "q_conv1d.weight": "(gk ek) 1 w",
    "k_conv1d.weight": "(gk ek) 1 w",
    "v_conv1d.weight": "(gk gr ev) 1 w",
    "o_norm.weight": "[ev]",
    "o_proj.weight": "d (gk gr ev)",
}
_ATTENTION = (
    attention() | {"q_norm.weight": "[k r e]", "k_norm.weight": "[k e]"} | when("attention_bias", attention_biases())
)
_ROTARY = "rope_parameters['rope_theta'] is not None"

FAMILY = Family(
    model_type="olmo_hybrid",
    architecture="OlmoHybridForCausalLM",
    fields="hidden_size=d vocab_size=v intermediate_size=f " + DELTA_FIELDS + "num_key_value_heads=k "
    "num_attention_heads=k*r head_dim=e head_dim=c",
    fallback=HEAD_DIM,
    stem={"embed_tokens.weight": "v d", "norm.weight": "[d]"},
    head=HEAD,
    slots=(
        Slot(
            "mixer",
            TypeList("layer_types", {"linear_attention": "delta", "full_attention": "attention"}),
            {
                "delta": Block(
                    {"attention_layer_norm.weight": "[d]", "feedforward_layer_norm.weight": "[d]"}
                    | under("linear_attn.", _DELTA),
                    DELTA_CACHE,
                ),
                "attention": Block(
                    {"post_attention_layernorm.weight": "[d]", "post_feedforward_layernorm.weight": "[d]"}
                    | under("self_attn.", _ATTENTION),
                    ATTENTION_CACHE,
                ),
            },
        ),
        Slot("ffn", Always("mlp"), {"mlp": Block(under("mlp.", glu()))}),
    ),
    spellings={"post_attention_layernorm.weight": "feedforward_layer_norm.weight"},
    weightless_norms=DELTA_SCALE,
    fixed=(Fixed("e", "rotary embedding: the frequencies follow from head_dim", _ROTARY),),
    # without positions any channels may go; queries are normalised, so the factor sits in their norm
    rescale={"self_attn.q_norm.weight": "e**0.5"},
    needs=("attention", "delta"),
    eps_exact="its norms behind attention and MLP read sub-block outputs, which the scaling of the residual stream "
    "does not reach",
    advice=(
        Advice("vLLM", "e * k*r == d", "it takes head_dim to be hidden_size / num_attention_heads"),
        Advice("vLLM", "ek <= 256", "its delta-rule kernels hold a key of at most 256 channels"),
    ),
)
