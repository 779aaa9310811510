"""The header of one safetensors file, read by a parser that trusts nothing.

Format: 8 bytes little-endian length N, N bytes of JSON (padded with spaces), then the data, without holes
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from secateur.checkpoint.files import open_regular, read_into, short
from secateur.checkpoint.strict_json import parse_json, printable
from secateur.errors import CheckpointError

MAX_HEADER = 100_000_000
"""Bytes; the same bound as the safetensors library's."""
MAX_COUNT = 2**63 - 1
MAX_NDIM = 64

DTYPES: dict[str, tuple[torch.dtype, int]] = {
    "F64": (torch.float64, 8),
    "F32": (torch.float32, 4),
    "F16": (torch.float16, 2),
    "BF16": (torch.bfloat16, 2),
    "F8_E4M3": (torch.float8_e4m3fn, 1),
    "F8_E5M2": (torch.float8_e5m2, 1),
    "F8_E8M0": (torch.float8_e8m0fnu, 1),
    "I64": (torch.int64, 8),
    "I32": (torch.int32, 4),
    "I16": (torch.int16, 2),
    "I8": (torch.int8, 1),
    "U64": (torch.uint64, 8),
    "U32": (torch.uint32, 4),
    "U16": (torch.uint16, 2),
    "U8": (torch.uint8, 1),
    "BOOL": (torch.bool, 1),
}
"""safetensors code -> torch dtype, bytes per element."""

CODES: dict[torch.dtype, str] = {dtype: code for code, (dtype, _) in DTYPES.items()}
"""torch dtype -> safetensors code."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies. ``begin`` and ``end`` are absolute byte offsets in ``file`` (a name inside the folder)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype][0]


def read_header(path: Path) -> tuple[dict[str, str], list[TensorInfo]]:
    """Metadata and tensors (in order of offset) of the safetensors file ``path``; CheckpointError if it is not one."""
    fd = open_regular(path)
    try:
        size = os.fstat(fd).st_size
        raw = _read_raw(fd, size, path)
    finally:
        os.close(fd)
    header = parse_json(raw, path=path, error=CheckpointError, unique=True)
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is {short(header)}, expected a JSON object")
    metadata = _metadata(header.pop("__metadata__", None), path)
    start = 8 + len(raw)
    infos = [_tensor_info(name, entry, start, path) for name, entry in header.items()]
    infos.sort(key=lambda info: (info.begin, info.end))
    _check_tiling(infos, start, size, path)
    return metadata, infos


def _read_raw(fd: int, size: int, path: Path) -> bytes:
    if size < 8:
        raise CheckpointError(f"{path}: {size} bytes, expected at least 8: not a safetensors file")
    length = bytearray(8)
    read_into(fd, memoryview(length), 0, path)
    count = int.from_bytes(length, "little")
    if count > MAX_HEADER:
        raise CheckpointError(
            f"{path}: header length {count}, expected at most {MAX_HEADER}",
            hint="This is not a safetensors file (a pickle renamed?), or its first bytes are damaged.",
        )
    if 8 + count > size:
        raise CheckpointError(
            f"{path}: header length {count} exceeds the file of {size} bytes",
            hint="The file was truncated or damaged; download or copy it again.",
        )
    raw = bytearray(count)
    read_into(fd, memoryview(raw), 8, path)
    if raw[:1] != b"{":
        raise CheckpointError(f"{path}: the header starts with {short(bytes(raw[:1]))}, expected b'{{'")
    return bytes(raw)


def _metadata(value: object, path: Path) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise CheckpointError(f"{path}: __metadata__ is {short(value)}, expected an object of strings")
    if not all(map(printable, (*value, *value.values()))):
        raise CheckpointError(f"{path}: __metadata__ is {short(value)}, expected text that UTF-8 can spell")
    return value


def _tensor_info(name: str, entry: object, start: int, path: Path) -> TensorInfo:
    def refuse(field: str, value: object, expected: str) -> NoReturn:
        raise CheckpointError(f"{path}: tensor {short(name)}: {field} is {short(value)}, expected {expected}")

    if not printable(name):
        refuse("the name", name, "text that UTF-8 can spell")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        refuse("the entry", entry, "an object with dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        refuse("dtype", dtype, "one of " + " ".join(DTYPES))
    if not isinstance(shape, list) or len(shape) > MAX_NDIM or not all(map(_is_count, shape)):
        refuse("shape", shape, f"a list of at most {MAX_NDIM} whole numbers from 0 to 2**63-1")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        refuse("data_offsets", offsets, "two whole numbers from 0 to 2**63-1")
    begin, end = offsets
    # Zeros are left out of the bound: torch computes strides of empty tensors too, and those must not overflow.
    if math.prod(size for size in shape if size) * DTYPES[dtype][1] > MAX_COUNT:
        refuse("shape", shape, f"fewer than 2**63 bytes of {dtype}")
    nbytes = math.prod(shape) * DTYPES[dtype][1]
    if end - begin != nbytes:
        refuse("data_offsets", offsets, f"{nbytes} bytes apart for {dtype} {short(shape)}")
    return TensorInfo(name, dtype, tuple(shape), path.name, start + begin, start + end)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_COUNT


def _check_tiling(infos: Iterable[TensorInfo], start: int, size: int, path: Path) -> None:
    """The tensors must cover the data from its first byte to the file's last: no overlap, no hole, no rest."""
    cursor = start
    for info in infos:
        if info.begin != cursor:
            fault = "overlaps the tensor before it" if info.begin < cursor else "leaves a hole before it"
            raise CheckpointError(
                f"{path}: tensor {short(info.name)}: begins at byte {info.begin}, expected {cursor}: it {fault}"
            )
        cursor = info.end
    if cursor != size:
        fault = "the file was truncated" if cursor > size else "bytes follow the last tensor"
        raise CheckpointError(
            f"{path}: {size} bytes, expected {cursor} from the header: {fault}",
            hint="Download or copy the file again." if cursor > size else None,
        )
