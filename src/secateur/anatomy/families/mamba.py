"""Mamba (arXiv 2312.00752): selective state spaces, one mixer a layer, no attention."""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    HEAD,
    MAMBA1,
    MAMBA1_BIASES,
    MAMBA1_CACHE,
    MAMBA1_CONV_BIAS,
    under,
    when,
)
from secateur.anatomy.family import Advice, Block, Family, Slot
from secateur.anatomy.selectors import Always

_MIXER = MAMBA1 | when("use_conv_bias", MAMBA1_CONV_BIAS) | when("use_bias", MAMBA1_BIASES)

FAMILY = Family(
    model_type="mamba",
    architecture="MambaForCausalLM",
    roots=("backbone.",),
    fields="hidden_size=d vocab_size=v intermediate_size=c1 state_size=n time_step_rank=t conv_kernel=w",
    stem={"embeddings.weight": "v d", "norm_f.weight": "[d]"},
    head=HEAD,
    every_layer={"norm.weight": "[d]"},
    slots=(Slot("mixer", Always("mamba"), {"mamba": Block(under("mixer.", _MIXER), MAMBA1_CACHE)}),),
    eps_field="layer_norm_epsilon",
    advice=(
        Advice("llama.cpp", "c1 == 2*d", "its converter expects twice as many inner channels as hidden channels"),
        Advice("llama.cpp (CUDA)", "n == 16 and c1 % 128 == 0", "its scan kernel expects 16 states and 128 channels"),
    ),
)
