"""LFM2 (arXiv 2511.23404): gated short convolutions in most layers, attention in the others."""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    ATTENTION_CACHE,
    HEAD,
    HEAD_DIM,
    ROPE,
    attention,
    glu,
    qk_norm,
    under,
    when,
)
from secateur.anatomy.family import Advice, Block, Cache, Family, Slot
from secateur.anatomy.selectors import Always, TypeList

_CONV = {
    "conv.weight": "cc 1 w",
    "in_proj.weight": "(B:cc + C:cc + x:cc) d",
    "out_proj.weight": "d cc",
} | when("conv_bias", {"conv.bias": "cc", "in_proj.bias": "(B:cc + C:cc + x:cc)", "out_proj.bias": "d"})
_ATTENTION = attention(o="out_proj") | qk_norm("q_layernorm", "k_layernorm")

#: The width the MLP really gets unless ``block_auto_adjust_ff_dim`` is off.
_TWO_THIRDS = "2*intermediate_size // 3"
_ROUNDED = (
    f"block_multiple_of * ((block_ffn_dim_multiplier * ({_TWO_THIRDS}) // 1 + block_multiple_of - 1) "
    "// block_multiple_of)"
)
_WIDTH = (
    f"intermediate_size if not block_auto_adjust_ff_dim else "
    f"{_TWO_THIRDS} if block_ffn_dim_multiplier is None else {_ROUNDED}"
)

FAMILY = Family(
    model_type="lfm2",
    architecture="Lfm2ForCausalLM",
    fields="hidden_size=d hidden_size=cc vocab_size=v conv_L_cache=w num_key_value_heads=k num_attention_heads=k*r "
    "head_dim=e head_dim=c",
    fallback=HEAD_DIM | {"f": _WIDTH},
    explicit={"f": {"intermediate_size": "f", "block_auto_adjust_ff_dim": "False"}},
    stale={"block_ff_dim": "f", "block_dim": "d", "conv_dim": "cc", "conv_dim_out": "cc", "num_heads": "k*r"},
    stem={"embed_tokens.weight": "v d", "embedding_norm.weight": "[d]"},
    head=HEAD,
    every_layer={"operator_norm.weight": "[d]", "ffn_norm.weight": "[d]"},
    slots=(
        Slot(
            "mixer",
            TypeList(
                "layer_types",
                {"conv": "conv", "full_attention": "attention"},
                index_keys={"full_attn_idxs": "attention"},
            ),
            {
                "conv": Block(under("conv.", _CONV), Cache(conv="cc*w")),
                "attention": Block(under("self_attn.", _ATTENTION), ATTENTION_CACHE),
            },
        ),
        Slot("ffn", Always("mlp"), {"mlp": Block(under("feed_forward.", glu("w1", "w3", "w2")))}),
    ),
    fixed=ROPE,
    needs=("attention",),
    eps_field="norm_eps",
    advice=(Advice("vLLM, llama.cpp", "e * k*r == d", "they take head_dim to be hidden_size / num_attention_heads"),),
)
