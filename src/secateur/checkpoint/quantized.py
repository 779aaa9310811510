"""Checkpoints of compressed-tensors with packed whole numbers ("pack-quantized"), read as the dense tensors they mean.

    <name>.weight_packed      int32 words along each row; 32 codes of b bits take b words
    <name>.weight_scale       (m, groups)
    <name>.weight_zero_point  packed along the rows; only where grids are asymmetric
    <name>.weight_shape       (m, d)

A dense tensor ``<name>.weight`` = (codes - zeros) * scales, computed in the dtype of the scales, stands in their place:
the same bits that transformers computes when it loads the folder. Nothing is unpacked before it is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateur.checkpoint.files import short
from secateur.checkpoint.header import TensorInfo
from secateur.checkpoint.store import TensorStore
from secateur.errors import CheckpointError

PACKED, SCALE, ZERO, SHAPE = "weight_packed", "weight_scale", "weight_zero_point", "weight_shape"
_FORMAT = "pack-quantized"


def is_packed(quantization: Any) -> bool:
    """Whether a config's ``quantization_config`` is of the kind read here: packed integer weights, nothing else."""
    if not isinstance(quantization, Mapping) or quantization.get("quant_method") != "compressed-tensors":
        return False
    groups = quantization.get("config_groups")
    return (
        quantization.get("format") == _FORMAT and isinstance(groups, Mapping) and all(map(_readable, groups.values()))
    )


def dense_loading(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that make packed weights dense as they load, by a config's ``raw`` fields.

    Without them the first call of the outermost module unpacks, and a call of one of its parts finds no weight.
    """
    if not is_packed(raw.get("quantization_config")):
        return {}
    from transformers import CompressedTensorsConfig

    return {"quantization_config": CompressedTensorsConfig(dequantize=True)}


def _readable(group: Any) -> bool:
    weights = group.get("weights") if isinstance(group, Mapping) else None
    return (
        isinstance(weights, Mapping)
        and weights.get("type") == "int"
        and weights.get("num_bits") in range(1, 9)
        and not group.get("input_activations")
        and not weights.get("actorder")
    )


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Signed codes (m, d) of ``bits`` bits -> int32 words (m, ceil(d bits / 32)): one stream of bits in every row."""
    raised = (codes.to(torch.int16) + (1 << (bits - 1))).numpy().astype(np.uint8)
    stream = np.unpackbits(raised[..., None], axis=-1, count=bits, bitorder="little").reshape(len(raised), -1)
    padded = np.pad(stream, ((0, 0), (0, -stream.shape[1] % 32)))
    return torch.from_numpy(np.packbits(padded, axis=-1, bitorder="little").view("<i4").astype(np.int32))


def unpack(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The inverse of :func:`pack`: int8 (m, count)."""
    stream = words.contiguous().numpy().astype("<i4").view(np.uint8)
    single = np.unpackbits(stream, axis=-1, count=count * bits, bitorder="little").reshape(len(stream), count, bits)
    codes = np.packbits(single, axis=-1, bitorder="little")[..., 0].astype(np.int16) - (1 << (bits - 1))
    return torch.from_numpy(codes.astype(np.int8))


class QuantizedStore(TensorStore):
    """A :class:`TensorStore` whose packed tensors are listed and read dense. Made by :func:`open_quantized`."""

    packed: Mapping[str, Packed] = {}

    def read(self, name: str) -> torch.Tensor:
        """The tensor, dense."""
        found = self.packed.get(name)
        if found is None:
            return super().read(name)
        whole, scale = self.codes(name)
        m, d = found.shape
        codes = whole.to(scale.dtype).reshape(m, scale.shape[1], -1)
        if ZERO in found.parts:
            zero = unpack(self._part(found, ZERO).T, found.bits, m).T
            codes -= zero.to(scale.dtype)[..., None]
        return (codes * scale[..., None]).reshape(m, d)

    def codes(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(codes (m, d) int8, scales (m, groups)) of a packed tensor."""
        found = self.packed[name]
        return unpack(self._part(found, PACKED), found.bits, found.shape[1]), self._part(found, SCALE)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows ``start`` to ``stop`` of the dense tensor."""
        return super().read_rows(name, start, stop) if name not in self.packed else self.read(name)[start:stop]

    def _part(self, found: Packed, part: str) -> torch.Tensor:
        info = found.parts[part]
        return self._load(info, info.begin, info.shape)


@dataclass(frozen=True, slots=True)
class Packed:
    """The parts of one packed tensor of ``shape`` (m, d)."""

    parts: Mapping[str, TensorInfo]
    shape: tuple[int, int]
    bits: int

    @property
    def width(self) -> int:
        """Columns that share a scale."""
        return self.shape[1] // self.parts[SCALE].shape[1]


def open_quantized(folder: Path, quantization: Mapping[str, Any]) -> QuantizedStore:
    """Read the headers of a folder whose config :func:`is_packed`. Raises CheckpointError for parts that do not fit."""
    store = QuantizedStore.open(folder)
    known = [
        (int(g["weights"]["num_bits"]), list(g.get("targets", ()))) for g in quantization["config_groups"].values()
    ]
    packed = {}
    for name in [n for n in store.tensors if n.endswith(f".{PACKED}")]:
        base = name.removesuffix(PACKED)
        parts = {p: store.tensors.pop(base + p) for p in (PACKED, SCALE, ZERO, SHAPE) if base + p in store.tensors}
        packed[f"{base}weight"] = _checked(store, f"{base}weight", parts, known)
    for name, found in packed.items():
        scale, (m, d) = found.parts[SCALE], found.shape
        nbytes = m * d * scale.torch_dtype.itemsize
        store.tensors[name] = TensorInfo(name, scale.dtype, (m, d), scale.file, 0, nbytes)
    store.packed = packed
    return store


def _checked(
    store: QuantizedStore, name: str, parts: dict[str, TensorInfo], known: Sequence[tuple[int, Sequence[str]]]
) -> Packed:
    place = f"{store.folder}: packed tensor {short(name)}"
    if not {PACKED, SCALE, SHAPE} <= parts.keys() or parts[SHAPE].shape != (2,):
        raise CheckpointError(f"{place}: its scale or its shape is missing")
    info = parts[SHAPE]
    m, d = (int(n) for n in store._load(info, info.begin, info.shape))
    words, scale = parts[PACKED].shape, parts[SCALE].shape
    fitting = sorted({b for b, _ in known if words == (m, math.ceil(d * b / 32))})
    if len(fitting) > 1:  # rows shorter than a word
        fitting = sorted({b for b, targets in known if b in fitting and _targeted(name, targets)})
    if len(fitting) != 1 or len(scale) != 2 or scale[0] != m or not scale[1] or d % scale[1]:
        raise CheckpointError(
            f"{place}: shape {(m, d)}, {words} words, {scale} scales do not fit together",
            hint=f"the config speaks of {', '.join(sorted({str(b) for b, _ in known}))} bits",
        )
    if ZERO in parts and parts[ZERO].shape != (math.ceil(m * fitting[0] / 32), scale[1]):
        raise CheckpointError(f"{place}: {parts[ZERO].shape} words of zeros do not fit shape {(m, d)}")
    return Packed(parts, (m, d), fitting[0])


def _targeted(name: str, targets: Sequence[str]) -> bool:
    """Whether a group's targets name the module of a tensor; files and modules may differ in their first component."""
    module = name.rpartition(".")[0]
    tail = module.partition(".")[2]
    patterns = [t.removeprefix("re:") for t in targets if t.startswith("re:")]
    return any(t == module or t.partition(".")[2] == tail for t in targets) or any(
        re.match(p, module) for p in patterns
    )
