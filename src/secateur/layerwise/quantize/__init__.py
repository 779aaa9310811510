"""Quantisation of linears without training. One method a file; ``QUANTIZE`` is the list users see."""

from secateur.layerwise.base import registry
from secateur.layerwise.quantize import bct, decoupleq, gptq, higgs, nupes, obq, onebit, rtn

QUANTIZE = registry(
    rtn.METHOD,
    gptq.METHOD,
    obq.METHOD,
    decoupleq.METHOD,
    higgs.METHOD,
    nupes.METHOD,
    bct.METHOD,
    onebit.METHOD,
)
