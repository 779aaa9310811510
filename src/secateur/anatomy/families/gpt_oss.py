"""gpt-oss (arXiv 2508.10925): mixture of experts, biases everywhere, attention sinks, every other layer windowed.

Expert matrices are stored input first, with gate and up channels interleaved. The published MXFP4 files must be
dequantised first: their blocks of 32 run along the input dimension.
"""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    ATTENTION_CACHE,
    HEAD,
    PRE_NORMS,
    ROPE,
    TOP_K,
    WINDOW_CACHE,
    attention,
    attention_biases,
    under,
    when,
)
from secateur.anatomy.family import Block, Family, Slot
from secateur.anatomy.selectors import Always, TypeList

_ATTENTION = under("self_attn.", attention() | {"sinks": "(k r)"} | when("attention_bias", attention_biases()))
_MOE = {
    "mlp.router.weight": "E d",
    "mlp.router.bias": "E",
    "mlp.experts.gate_up_proj": "E d (fe 2)",
    "mlp.experts.gate_up_proj_bias": "E (fe 2)",
    "mlp.experts.down_proj": "E fe d",
    "mlp.experts.down_proj_bias": "E d",
}

FAMILY = Family(
    model_type="gpt_oss",
    architecture="GptOssForCausalLM",
    fields="hidden_size=d vocab_size=v intermediate_size=fe num_local_experts=E num_key_value_heads=k "
    "num_attention_heads=k*r head_dim=e head_dim=c",
    stem={"embed_tokens.weight": "v d", "norm.weight": "[d]"},
    head=HEAD,
    every_layer=PRE_NORMS,
    slots=(
        Slot(
            "mixer",
            TypeList("layer_types", {"full_attention": "attention", "sliding_attention": "sliding_attention"}),
            {
                "attention": Block(_ATTENTION, ATTENTION_CACHE),
                "sliding_attention": Block(_ATTENTION, WINDOW_CACHE),
            },
        ),
        Slot("ffn", Always("moe"), {"moe": Block(_MOE)}),
    ),
    rules=(TOP_K,),
    fixed=ROPE,
    eps_exact="its expert matrices are stored input first, so writers of the residual stream are not told apart",
)
