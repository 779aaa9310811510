"""GPT-2 (Radford et al. 2019): LayerNorm, learned positions, matrices stored input first (Conv1D)."""

from __future__ import annotations

from secateur.anatomy.families._blocks import ATTENTION_CACHE, HEAD
from secateur.anatomy.family import Block, Family, Fixed, Slot
from secateur.anatomy.selectors import Always

_QKV = "(q:k e + k:k e + v:k c)"

FAMILY = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    roots=("transformer.", ""),
    layer="h.{L}.",
    layers_field="n_layer",
    fields="n_embd=d vocab_size=v n_positions=pos n_head=k n_embd=k*e n_inner=f",
    fallback={"c": "e", "f": "4*d"},
    global_axes=("d", "v", "pos"),
    stem={"wte.weight": "v d", "wpe.weight": "pos d", "ln_f.weight": "ln[d]", "ln_f.bias": "d"},
    head=HEAD,
    every_layer={"ln_1.weight": "ln[d]", "ln_1.bias": "d", "ln_2.weight": "ln[d]", "ln_2.bias": "d"},
    slots=(
        Slot(
            "mixer",
            Always("attention"),
            {
                "attention": Block(
                    {
                        "attn.c_attn.weight": f"d {_QKV}",
                        "attn.c_attn.bias": _QKV,
                        "attn.c_proj.weight": "(k c) d",
                        "attn.c_proj.bias": "d",
                    },
                    ATTENTION_CACHE,
                )
            },
        ),
        Slot(
            "ffn",
            Always("mlp"),
            {
                "mlp": Block(
                    {
                        "mlp.c_fc.weight": "d f",
                        "mlp.c_fc.bias": "f",
                        "mlp.c_proj.weight": "f d",
                        "mlp.c_proj.bias": "d",
                    }
                )
            },
        ),
    ),
    fixed=(
        Fixed("e", "queries share one matrix with keys and values, so the new 1/sqrt(head_dim) could not be undone"),
        Fixed("c", "the config has one size for the channels of keys and values"),
    ),
    eps_field=None,
    eps_exact="LayerNorm subtracts a mean that changes with the width",
    ignored={r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias": "the causal mask, rebuilt by the code"},
)
