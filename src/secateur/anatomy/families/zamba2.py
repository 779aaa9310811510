"""Zamba2 (arXiv 2411.15242): Mamba-2 layers; some also read a shared transformer, personalised by low-rank adapters.

The shared transformer sees the stream beside the word embedding (2 x hidden). Between its attention and its MLP lies a
space ``m``, between its MLP and the layer's ``linear`` a space ``y``: both as wide as the stream, but not the stream.
"""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    HEAD,
    MAMBA2,
    MAMBA2_ADVICE,
    MAMBA2_BIASES,
    MAMBA2_CACHE,
    MAMBA2_CONV_BIAS,
    under,
    when,
)
from secateur.anatomy.family import Advice, Block, Cache, Family, Fixed, Rule, Shared, Slot
from secateur.anatomy.selectors import TypeList

_MAMBA = {"input_layernorm.weight": "[d]"} | under(
    "mamba.", MAMBA2 | MAMBA2_CONV_BIAS | when("add_bias_linear", MAMBA2_BIASES)
)
_BOTH = "(x:d + o:d)"
_GATE_UP = "(gate:f + up:f)"


def _adapter(name: str, rank: str, inside: str, outside: str) -> dict[str, str]:
    """The two factors of a low-rank adapter, one pair per user of the shared block."""
    return {f"{name}.{{S}}.0.weight": f"{rank} {inside}", f"{name}.{{S}}.1.weight": f"{outside} {rank}"}


_ATTENTION = {
    "q_proj.weight": f"(k r e) {_BOTH}",
    "k_proj.weight": f"(k e) {_BOTH}",
    "v_proj.weight": f"(k c) {_BOTH}",
    "o_proj.weight": "m (k r c)",
} | when(
    "use_shared_attention_adapter",
    _adapter("linear_q_adapter_list", "rq", _BOTH, "(k r e)")
    | _adapter("linear_k_adapter_list", "rk", _BOTH, "(k e)")
    | _adapter("linear_v_adapter_list", "rv", _BOTH, "(k c)"),
)
_FEED_FORWARD = (
    {"gate_up_proj.weight": f"{_GATE_UP} m", "down_proj.weight": "y f"}
    | _adapter("gate_up_proj_adapter_list", "ra", "m", _GATE_UP)
    | when("add_bias_linear", {"gate_up_proj.bias": _GATE_UP, "down_proj.bias": "y"})
)
_SHARED = (
    {"input_layernorm.weight": "[x:d + o:d]", "pre_ff_layernorm.weight": "[m]"}
    | under("self_attn.", _ATTENTION)
    | under("feed_forward.", _FEED_FORWARD)
)

FAMILY = Family(
    model_type="zamba2",
    architecture="Zamba2ForCausalLM",
    fields="hidden_size=d hidden_size=m hidden_size=y vocab_size=v mamba_ngroups=g n_mamba_heads=g*h mamba_headdim=p "
    "mamba_d_state=n mamba_d_conv=w intermediate_size=f num_key_value_heads=k num_attention_heads=k*r "
    "attention_head_dim=e attention_head_dim=c attention_hidden_size=2*d "
    "adapter_rank=ra adapter_rank=rq adapter_rank=rk adapter_rank=rv",
    stem={"embed_tokens.weight": "v d", "final_layernorm.weight": "[d]"},
    head=HEAD,
    slots=(
        Slot(
            "mixer",
            TypeList(
                "layers_block_type",
                {"linear_attention": "mamba", "mamba": "mamba", "hybrid": "hybrid"},
                raw_keys=("layers_block_type", "layer_types"),
                index_keys={"hybrid_layer_ids": "hybrid"},
            ),
            {
                "mamba": Block(_MAMBA, MAMBA2_CACHE),
                "hybrid": Block(
                    {"linear.weight": "d y"} | under("mamba_decoder.", _MAMBA) | under("shared_transformer.", _SHARED),
                    Cache(per_token="k*e + k*c", state=MAMBA2_CACHE.state, conv=MAMBA2_CACHE.conv),
                ),
            },
        ),
    ),
    shared=Shared(
        "shared_transformer.", "num_mem_blocks", "hybrid", ("k", "r", "e", "c", "m", "y", "f", "ra", "rq", "rk", "rv")
    ),
    derived={"mamba_expand": "g*h*p / d"},
    stale={"kv_channels": "d // (k*r)", "num_query_groups": "k*r"},
    rules=(
        Rule(
            "not use_shared_attention_adapter or k*r*e == 2*d",
            "the adapters of q are 2 x hidden wide, so heads * head_dim must be 2 x hidden",
        ),
        Rule(
            "not use_shared_attention_adapter or k*e == 2*d",
            "the adapters of k and v are 2 x hidden wide, so key heads * head_dim must be 2 x hidden",
        ),
    ),
    fixed=(
        Fixed("e", "rotary embedding: the frequencies follow from head_dim", "use_mem_rope"),
        Fixed("c", "the config has one field for the channels of keys and values", "use_mem_rope"),
    ),
    # without positions any channels of a head may go; the 1/sqrt(head_dim/2) scale follows the config
    rescale={
        "shared_transformer.self_attn.q_proj.weight": "e**0.5",
        "shared_transformer.self_attn.linear_q_adapter_list.{S}.1.weight": "e**0.5",
    },
    # the gated norm of the Mamba mixer has its eps in the code
    eps_field=None,
    ignored={r".*\.rotary_emb\.inv_freq": "recomputed from the config"},
    advice=(
        *MAMBA2_ADVICE,
        Advice(
            "vLLM", "k*r*e == 2*d and r == 1", "it computes head_dim as 2 * hidden / heads and knows no shared keys"
        ),
    ),
)
