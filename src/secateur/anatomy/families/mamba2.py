"""Mamba-2 (arXiv 2405.21060): state space duality, heads that share B and C in groups, no attention."""

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
from secateur.anatomy.family import Block, Family, Slot
from secateur.anatomy.selectors import Always

_MIXER = MAMBA2 | when("use_conv_bias", MAMBA2_CONV_BIAS) | when("use_bias", MAMBA2_BIASES)

FAMILY = Family(
    model_type="mamba2",
    architecture="Mamba2ForCausalLM",
    roots=("backbone.",),
    fields="hidden_size=d vocab_size=v n_groups=g num_heads=g*h head_dim=p state_size=n conv_kernel=w",
    stem={"embeddings.weight": "v d", "norm_f.weight": "[d]"},
    head=HEAD,
    every_layer={"norm.weight": "[d]"},
    slots=(Slot("mixer", Always("mamba"), {"mamba": Block(under("mixer.", _MIXER), MAMBA2_CACHE)}),),
    derived={"expand": "g*h*p / d"},
    eps_field="layer_norm_epsilon",
    advice=MAMBA2_ADVICE,
)
