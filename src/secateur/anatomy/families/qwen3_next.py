"""Qwen3-Next: gated delta rule (arXiv 2412.06464) in most layers, gated attention in the others, experts in all."""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    ATTENTION_CACHE,
    DELTA,
    DELTA_ADVICE,
    DELTA_CACHE,
    DELTA_FIELDS,
    DELTA_SCALE,
    HEAD,
    KERNEL_FE,
    ROPE,
    TOP_K,
    experts,
    gated_attention,
    glu,
    under,
    when,
)
from secateur.anatomy.family import Block, Family, Slot
from secateur.anatomy.selectors import Sparse, TypeList

_DELTA = DELTA | {
    "in_proj_qkvz.weight": "(gk (q:ek + k:ek + v:gr ev + z:gr ev)) d",
    "in_proj_ba.weight": "(gk (b:gr + a:gr)) d",
}
_WEIGHTS, _BIASES = gated_attention()
_MOE = {"gate.weight": "E d", "shared_expert_gate.weight": "1 d"} | experts() | under("shared_expert.", glu(f="fs"))

FAMILY = Family(
    model_type="qwen3_next",
    architecture="Qwen3NextForCausalLM",
    fields="hidden_size=d vocab_size=v intermediate_size=f moe_intermediate_size=fe "
    "shared_expert_intermediate_size=fs num_experts=E " + DELTA_FIELDS + "num_key_value_heads=k "
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
        Slot(
            "ffn",
            Sparse(),
            {"dense": Block(under("mlp.", glu())), "moe": Block(under("mlp.", _MOE))},
        ),
    ),
    weightless_norms=DELTA_SCALE,
    rules=(TOP_K,),
    fixed=ROPE,
    needs=("attention",),
    ignored={r"mtp\..*": "multi-token-prediction layers are not loaded by transformers and do not fit the new shape"},
    advice=(*DELTA_ADVICE, KERNEL_FE),
)
