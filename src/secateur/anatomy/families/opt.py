"""OPT (arXiv 2205.01068): LayerNorm, learned positions, and word embeddings that may be narrower than the model."""

from __future__ import annotations

from secateur.anatomy.families._blocks import ATTENTION_CACHE, under, when
from secateur.anatomy.family import Block, Family, Rule, Slot
from secateur.anatomy.selectors import Always

_PROJECTED = "word_embed_proj_dim != hidden_size"
_FINAL_NORM = "do_layer_norm_before and not _remove_final_layer_norm and layer_norm_elementwise_affine"
_ATTENTION = {
    "q_proj.weight": "(k e) d",
    "k_proj.weight": "(k e) d",
    "v_proj.weight": "(k c) d",
    "out_proj.weight": "d (k c)",
} | when("enable_bias", {"q_proj.bias": "(k e)", "k_proj.bias": "(k e)", "v_proj.bias": "(k c)", "out_proj.bias": "d"})
_MLP = {"fc1.weight": "f d", "fc2.weight": "d f"} | when("enable_bias", {"fc1.bias": "f", "fc2.bias": "d"})

FAMILY = Family(
    model_type="opt",
    architecture="OPTForCausalLM",
    roots=("model.decoder.", "decoder."),
    fields="hidden_size=d vocab_size=v word_embed_proj_dim=dw max_position_embeddings=pos num_attention_heads=k "
    "hidden_size=k*e ffn_dim=f",
    fallback={"c": "e"},
    derived={"word_embed_proj_dim": "d if word_embed_proj_dim == hidden_size"},
    global_axes=("d", "v", "dw", "pos"),
    stem={
        "embed_tokens.weight": f"v dw if {_PROJECTED} else v d",
        "embed_positions.weight": "(offset:2 + pos) d",
    }
    | when(_PROJECTED, {"project_in.weight": "d dw", "project_out.weight": "dw d"})
    | when(_FINAL_NORM, {"final_layer_norm.weight": "ln[d]", "final_layer_norm.bias": "d"}),
    head={"lm_head.weight": f"v dw if {_PROJECTED} and not tie_word_embeddings else v d if not tie_word_embeddings"},
    every_layer=when(
        "layer_norm_elementwise_affine",
        {
            "self_attn_layer_norm.weight": "ln[d]",
            "self_attn_layer_norm.bias": "d",
            "final_layer_norm.weight": "ln[d]",
            "final_layer_norm.bias": "d",
        },
    ),
    weightless_norms=("ln[d]",),
    slots=(
        Slot("mixer", Always("attention"), {"attention": Block(under("self_attn.", _ATTENTION), ATTENTION_CACHE)}),
        Slot("ffn", Always("mlp"), {"mlp": Block(_MLP)}),
    ),
    rules=(Rule("dw != d", "equal widths would make the model class leave out the projections"),),
    rescale={"self_attn.q_proj.weight": "e**0.5", "self_attn.q_proj.bias": "e**0.5"},
    eps_field=None,
    eps_exact="LayerNorm subtracts a mean that changes with the width",
)
