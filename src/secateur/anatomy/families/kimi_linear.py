"""Kimi Linear (arXiv 2510.26692): delta attention with a decay per channel, latent attention, experts.

One config field sizes key and value channels of the delta layers and the ranks of their two low-rank gates. The
published config keeps the delta sizes and layer numbers (counted from 1) in ``linear_attn_config``.
"""

from __future__ import annotations

from secateur.anatomy.families._blocks import DELTA_SCALE, KERNEL_FE, PRE_NORMS, TOP_K, experts, glu, under, when
from secateur.anatomy.family import Block, Cache, Family, Fixed, Rule, Slot
from secateur.anatomy.selectors import Leading, NumberedLists

_DELTA = {
    "q_proj.weight": "(gk ek) d",
    "k_proj.weight": "(gk ek) d",
    "v_proj.weight": "(gk ev) d",
    "q_conv1d.weight": "(gk ek) 1 w",
    "k_conv1d.weight": "(gk ek) 1 w",
    "v_conv1d.weight": "(gk ev) 1 w",
    "A_log": "1 1 gk 1",
    "dt_bias": "(gk ek)",
    "f_a_proj.weight": "rf d",
    "f_b_proj.weight": "(gk ek) rf",
    "b_proj.weight": "gk d",
    "g_a_proj.weight": "rg d",
    "g_b_proj.weight": "(gk ev) rg",
    "o_norm.weight": "[ev]",
    "o_proj.weight": "d (gk ev)",
}
_Q = "(a (nope:en + rope:er))"
_KV_A = "(latent:kr + rope:er)"
_LATENT = (
    {
        "kv_a_proj_with_mqa.weight": f"{_KV_A} d",
        "kv_a_layernorm.weight": "[kr]",
        "kv_b_proj.weight": "(a (nope:en + v:cv)) kr",
        "o_proj.weight": "d (a cv)",
    }
    | when("q_lora_rank is None", {"q_proj.weight": f"{_Q} d"})
    | when(
        "q_lora_rank is not None",
        {"q_a_proj.weight": "qr d", "q_a_layernorm.weight": "[qr]", "q_b_proj.weight": f"{_Q} qr"},
    )
    | when("attention_bias", {"kv_a_proj_with_mqa.bias": _KV_A, "o_proj.bias": "d"})
    | when("attention_bias and q_lora_rank is not None", {"q_a_proj.bias": "qr"})
)
_MOE = (
    {"gate.weight": "E d", "gate.e_score_correction_bias": "E"}
    | experts(names="w1 w3 w2")
    | under("shared_experts.", glu(f="(ns fm)"))
)

FAMILY = Family(
    model_type="kimi_linear",
    architecture="KimiLinearForCausalLM",
    fields="hidden_size=d vocab_size=v intermediate_size=f moe_intermediate_size=fe moe_intermediate_size=fm "
    "n_shared_experts=ns num_local_experts=E linear_num_heads=gk linear_head_dim=ek linear_head_dim=ev "
    "linear_head_dim=rf linear_head_dim=rg linear_conv_kernel_dim=w num_attention_heads=a num_key_value_heads=a "
    "kv_lora_rank=kr q_lora_rank=qr qk_nope_head_dim=en qk_rope_head_dim=er v_head_dim=cv",
    nested={
        "linear_num_heads": "linear_attn_config.num_heads",
        "linear_head_dim": "linear_attn_config.head_dim",
        "linear_conv_kernel_dim": "linear_attn_config.short_conv_kernel_size",
    },
    stale={"head_dim": "er", "qk_head_dim": "en + er"},
    stem={"embed_tokens.weight": "v d", "norm.weight": "[d]"},
    head={"lm_head.weight": "v d"},  # its model class ties nothing, whatever the config says
    every_layer=PRE_NORMS,
    slots=(
        Slot(
            "mixer",
            NumberedLists(
                "layer_types",
                {"linear_attention": "delta", "full_attention": "latent"},
                "linear_attn_config",
                {"delta": "kda_layers", "latent": "full_attn_layers"},
            ),
            {
                "delta": Block(under("self_attn.", _DELTA), Cache(state="gk*ek*ev", conv="gk*(2*ek + ev)*w")),
                "latent": Block(under("self_attn.", _LATENT), Cache(per_token="kr + er")),
            },
        ),
        Slot(
            "ffn",
            Leading("mlp_layer_types", {"dense": "dense", "sparse": "moe"}, "first_k_dense_replace", "dense"),
            {"dense": Block(under("mlp.", glu())), "moe": Block(under("block_sparse_moe.", _MOE))},
        ),
    ),
    # transformers writes the dense layers' MLP under the experts' prefix
    spellings={f"mlp.{m}_proj.weight": f"block_sparse_moe.{m}_proj.weight" for m in ("gate", "up", "down")},
    weightless_norms=DELTA_SCALE,
    # latent attention carries no positions; its 1/sqrt(head width) follows the config
    rescale={"latent:self_attn.q_proj.weight": "(en + er)**0.5", "latent:self_attn.q_b_proj.weight": "(en + er)**0.5"},
    rules=(
        TOP_K,
        Rule("E >= 2", "the router ranks groups of experts by their two best"),
    ),
    fixed=(Fixed("E", "group-limited routing: an expert's place says which group it is in", "n_group > 1"),),
    needs=("latent",),
    advice=(KERNEL_FE,),
)
