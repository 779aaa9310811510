"""Qwen3.5, text part: gated delta rule (arXiv 2412.06464) with split projections, gated attention, dense MLP."""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    ATTENTION_CACHE,
    DELTA,
    DELTA_ADVICE,
    DELTA_CACHE,
    DELTA_CONV,
    DELTA_FIELDS,
    DELTA_SCALE,
    HEAD,
    ROPE,
    gated_attention,
    glu,
    under,
    when,
)
from secateur.anatomy.family import Block, Family, Slot
from secateur.anatomy.selectors import Always, TypeList

_DELTA = DELTA | {
    "in_proj_qkv.weight": f"{DELTA_CONV} d",
    "in_proj_z.weight": "(gk gr ev) d",
    "in_proj_a.weight": "(gk gr) d",
    "in_proj_b.weight": "(gk gr) d",
}
_WEIGHTS, _BIASES = gated_attention()

FAMILY = Family(
    model_type="qwen3_5_text",
    architecture="Qwen3_5ForCausalLM",
    roots=("model.", "model.language_model."),
    fields="hidden_size=d vocab_size=v intermediate_size=f " + DELTA_FIELDS + "num_key_value_heads=k "
    "num_attention_heads=k*r head_dim=e head_dim=c",
    stem={"embed_tokens.weight": "v d", "norm.weight": "1+[d]"},
    head=HEAD,
    every_layer={"input_layernorm.weight": "1+[d]", "post_attention_layernorm.weight": "1+[d]"},
    slots=(
        Slot(
            "mixer",
            TypeList("layer_types", {"linear_attention": "delta", "full_attention": "attention"}),
            {
                "delta": Block(under("linear_attn.", _DELTA), DELTA_CACHE),
                "attention": Block(under("self_attn.", _WEIGHTS | when("attention_bias", _BIASES)), ATTENTION_CACHE),
            },
        ),
        Slot("ffn", Always("mlp"), {"mlp": Block(under("mlp.", glu()))}),
    ),
    weightless_norms=DELTA_SCALE,
    fixed=ROPE,
    needs=("attention",),
    ignored={
        r"mtp\..*": "multi-token-prediction layers are not loaded by transformers and do not fit the new shape",
        r"model\.visual\..*": "the vision tower is not part of the text model",
    },
    advice=DELTA_ADVICE,
)
