"""Nemotron-H (arXiv 2504.03624): each layer is one sub-block - Mamba-2, attention without positions, MLP or MoE."""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    ATTENTION_CACHE,
    MAMBA2,
    MAMBA2_ADVICE,
    MAMBA2_BIASES,
    MAMBA2_CACHE,
    MAMBA2_CONV_BIAS,
    TOP_K,
    attention,
    under,
    when,
)
from secateur.anatomy.family import Advice, Block, Family, Fixed, Rule, Slot
from secateur.anatomy.selectors import TypeList

_MAMBA = MAMBA2 | when("use_conv_bias", MAMBA2_CONV_BIAS) | when("use_bias", MAMBA2_BIASES)
_MLP = {"up_proj.weight": "f d", "down_proj.weight": "d f"} | when(
    "mlp_bias", {"up_proj.bias": "f", "down_proj.bias": "d"}
)
_LATENT = "moe_latent_size is not None"
_MOE = (
    {
        "gate.weight": "E d",
        "gate.e_score_correction_bias": "E",
        "experts.{E}.up_proj.weight": f"fe dl if {_LATENT} else fe d",
        "experts.{E}.down_proj.weight": f"dl fe if {_LATENT} else d fe",
        "shared_experts.up_proj.weight": "fs d",
        "shared_experts.down_proj.weight": "d fs",
    }
    | when("mlp_bias", {"shared_experts.up_proj.bias": "fs", "shared_experts.down_proj.bias": "d"})
    | when(_LATENT, {"fc1_latent_proj.weight": "dl d", "fc2_latent_proj.weight": "d dl"})
    | when(f"{_LATENT} and mlp_bias", {"fc1_latent_proj.bias": "dl", "fc2_latent_proj.bias": "d"})
)

FAMILY = Family(
    model_type="nemotron_h",
    architecture="NemotronHForCausalLM",
    roots=("backbone.", "model."),
    fields="hidden_size=d vocab_size=v n_groups=g mamba_num_heads=g*h mamba_head_dim=p ssm_state_size=n conv_kernel=w "
    "intermediate_size=f moe_intermediate_size=fe moe_shared_expert_intermediate_size=fs n_routed_experts=E "
    "moe_latent_size=dl "
    "num_key_value_heads=k num_attention_heads=k*r head_dim=e head_dim=c",
    stem={"embeddings.weight": "v d", "norm_f.weight": "[d]"},
    # transformers ties no head here, whatever tie_word_embeddings says, and reads attention_bias nowhere
    head={"lm_head.weight": "v d"},
    every_layer={"norm.weight": "[d]"},
    slots=(
        Slot(
            "mixer",
            TypeList(
                "layers_block_type",
                {
                    "mamba": "mamba",
                    "linear_attention": "mamba",
                    "attention": "attention",
                    "full_attention": "attention",
                    "mlp": "mlp",
                    "moe": "moe",
                },
                raw_keys=("layers_block_type", "hybrid_override_pattern"),
            ),
            {
                "mamba": Block(under("mixer.", _MAMBA), MAMBA2_CACHE),
                "attention": Block(under("mixer.", attention()), ATTENTION_CACHE),
                "mlp": Block(under("mixer.", _MLP)),
                "moe": Block(under("mixer.", _MOE)),
            },
        ),
    ),
    # attention carries no positions, so any channels may go; the 1/sqrt(head_dim) scale follows the config
    rescale={"mixer.q_proj.weight": "e**0.5"},
    rules=(
        Rule("E >= 2", "the router scores experts by the two best"),
        TOP_K,
    ),
    fixed=(Fixed("E", "group-limited routing: without some experts others would change group", "n_group > 1"),),
    # the multi-token-prediction layers stay behind, so the child must not promise them
    stale={"num_nextn_predict_layers": "0"},
    needs=("attention",),
    eps_field="layer_norm_epsilon",
    ignored={r"mtp\..*": "multi-token-prediction layers are not loaded by transformers and do not fit the new shape"},
    advice=(
        *MAMBA2_ADVICE,
        Advice("llama.cpp", "(g*h*p) % 64 == 0", "its converter expects the SSM inner size to be a multiple of 64"),
    ),
)
