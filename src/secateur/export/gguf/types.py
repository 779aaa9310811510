"""Which type each tensor has in the file, and packed codes put into blocks without rounding them again.

    q4_0    32 weights: a half-precision scale and 4-bit codes, w = (code - 8) scale
    q8_0    32 weights: a half-precision scale and 8-bit codes, w = code scale

A linear whose codes are packed already (quantize --store packed, symmetric, groups of a multiple of 32) keeps them: up
to 4 bits in q4_0, up to 8 in q8_0. Only its scales are rounded, to half precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.checkpoint.quantized import Packed, QuantizedStore
from secateur.errors import UsageError
from secateur.export.gguf.operations import OPERATIONS
from secateur.export.gguf.plan import Made

TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
_PLAIN_ONLY = (".ssm_conv1d.weight", ".ssm_a", ".ssm_d", ".ffn_gate_inp.weight", "_norm.weight", ".ffn_norm")
"""llama.cpp computes with these in float32."""
_ENDS = ("token_embd.weight", "output.weight")
_BLOCK = 32


def check_type(name: str) -> str:
    """Raises UsageError for a type that cannot be written."""
    if name not in TYPES:
        raise UsageError(f"--type {name!r}: expected one of {', '.join(TYPES)}")
    return name


def type_of(made: Made, shape: tuple[int, ...], wanted: str) -> str:
    """Vectors, norms and what llama.cpp wants so are f32; rows that do not divide into blocks f16; embedding and head
    have at least 8 bits."""
    if len(shape) < 2 or made.name.endswith(_PLAIN_ONLY) or wanted == "f32":
        return "f32"
    if wanted.startswith("q") and shape[-1] % _BLOCK:
        return "f16"
    return "q8_0" if made.name in _ENDS and wanted.startswith("q") else wanted


def kept_codes(store: Any, made: Made) -> list[Packed] | None:
    """The packed tensors whose codes go into the file as they are; None where they cannot."""
    if not isinstance(store, QuantizedStore) or not made.moves_rows_only:
        return None
    found = [store.packed.get(n) for n in made.sources]
    kept = [p for p in found if p is not None and "weight_zero_point" not in p.parts and p.width % _BLOCK == 0]
    return kept if len(kept) == len(found) and len({p.bits for p in kept}) == 1 else None


def coded(store: QuantizedStore, made: Made, bits: int) -> NDArray[np.uint8]:
    """Blocks of q4_0 or q8_0, (.., rows, bytes), from stored codes and scales."""
    each = [_blocks(*_turned(made, *store.codes(n)), bits) for n in made.sources]
    return np.stack(each) if made.stacked else each[0]


def _turned(made: Made, codes: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    for name, value in made.operations:
        codes, scale = OPERATIONS[name](codes, value), OPERATIONS[name](scale, value)
    return codes, scale


def _blocks(codes: torch.Tensor, scale: torch.Tensor, bits: int) -> NDArray[np.uint8]:
    m, d = codes.shape
    blocks = codes.reshape(m, d // _BLOCK, _BLOCK).numpy()
    each = scale.repeat_interleave(d // scale.shape[1] // _BLOCK, dim=1).half().numpy()
    if bits <= 4:
        raised = (blocks + 8).astype(np.uint8)
        body = raised[..., : _BLOCK // 2] | raised[..., _BLOCK // 2 :] << 4
    else:
        body = blocks.astype(np.int8).view(np.uint8)
    return np.concatenate([each[..., None].view(np.uint8), body], axis=-1).reshape(m, -1)
