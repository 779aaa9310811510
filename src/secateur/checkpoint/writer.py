"""Write safetensors files whose headers are known before their data: no tensor is held longer than its own write."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from secateur.checkpoint.buffers import BufferPool
from secateur.checkpoint.config import write_json
from secateur.checkpoint.files import short
from secateur.checkpoint.header import CODES, DTYPES, MAX_COUNT, MAX_HEADER
from secateur.checkpoint.store import INDEX, SINGLE
from secateur.checkpoint.write_behind import WriteBehind
from secateur.errors import CheckpointError

PT_METADATA: Mapping[str, str] = {"format": "pt"}
"""transformers refuses safetensors files without it."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor to be written: ``dtype`` is the safetensors code."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype][1]


@dataclass(frozen=True, slots=True)
class Shard:
    """One file: its tensors in the order of their bytes."""

    file: str
    specs: tuple[TensorSpec, ...]

    @property
    def nbytes(self) -> int:
        return sum(spec.nbytes for spec in self.specs)


_POOL = BufferPool()
"""Views (a slice of columns, say) are made contiguous here: fresh memory for each would cost more than the copy."""

Produce = Callable[[TensorSpec], "torch.Tensor | Iterator[torch.Tensor]"]
Progress = Callable[[int], None]


def plan_shards(specs: Sequence[TensorSpec], shard_bytes: int) -> list[Shard]:
    """Fill shards greedily in the given order, named as transformers names them.

    A tensor larger than ``shard_bytes`` gets a shard of its own. Within a shard wider dtypes come first (a stable
    sort), so that every tensor starts at a multiple of its element size, as in files of the safetensors library.
    """
    _check_specs(specs)
    if shard_bytes < 1:
        raise CheckpointError(f"shard size {shard_bytes}, expected at least one byte")
    groups: list[list[TensorSpec]] = [[]]
    room = shard_bytes
    for spec in specs:
        if groups[-1] and spec.nbytes > room:
            groups.append([])
            room = shard_bytes
        groups[-1].append(spec)
        room -= spec.nbytes
    for group in groups:
        group.sort(key=lambda spec: -DTYPES[spec.dtype][1])
    if len(groups) == 1:
        return [Shard(SINGLE, tuple(groups[0]))]
    count = len(groups)
    return [Shard(f"model-{at:05d}-of-{count:05d}.safetensors", tuple(group)) for at, group in enumerate(groups, 1)]


def write_tensors(
    folder: Path,
    specs: Sequence[TensorSpec],
    produce: Produce,
    *,
    shard_bytes: int = 5 * 10**9,
    metadata: Mapping[str, str] = PT_METADATA,
    progress: Progress | None = None,
) -> None:
    """Write ``specs`` into the existing ``folder``, one ``produce(spec)`` after another.

    ``produce`` is called once for each tensor, in the order of the bytes. It returns the tensor, or an iterator over
    slabs of it along dimension 0, in order. CheckpointError if a produced tensor is not what its spec says, or the
    disk refuses.
    ``progress`` is told the bytes of each piece handed to the writer.
    """
    shards = plan_shards(specs, shard_bytes)
    for shard in shards:
        with WriteBehind(folder / shard.file) as out:
            out.put(memoryview(_header(shard, metadata)))
            for spec in shard.specs:
                for piece in _pieces(spec, produce(spec)):
                    out.put(piece)
                    if progress is not None:
                        progress(len(piece))
    if len(shards) > 1:
        weight_map = {spec.name: shard.file for shard in shards for spec in shard.specs}
        total = sum(shard.nbytes for shard in shards)
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def _check_specs(specs: Sequence[TensorSpec]) -> None:
    seen: set[str] = set()
    if not specs:
        raise CheckpointError("no tensors to write")
    for spec in specs:
        place = f"tensor {short(spec.name)}"
        if spec.name in seen or spec.name == "__metadata__":
            raise CheckpointError(f"{place}: the name is taken, expected each name once")
        if spec.dtype not in DTYPES:
            raise CheckpointError(f"{place}: dtype is {short(spec.dtype)}, expected one of {' '.join(DTYPES)}")
        if any(size < 0 for size in spec.shape) or spec.nbytes > MAX_COUNT:
            raise CheckpointError(f"{place}: shape is {short(spec.shape)}, expected sizes from 0 up, below 2**63 bytes")
        seen.add(spec.name)


def _header(shard: Shard, metadata: Mapping[str, str]) -> bytes:
    """Length and JSON, padded with spaces so that the data starts at a multiple of 8."""
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    begin = 0
    for spec in shard.specs:
        end = begin + spec.nbytes
        table[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise CheckpointError(
            f"{shard.file}: the header needs {len(text)} bytes, the format allows {MAX_HEADER}",
            hint="Write smaller shards.",
        )
    return len(text).to_bytes(8, "little") + text


def _pieces(spec: TensorSpec, made: torch.Tensor | Iterator[torch.Tensor]) -> Iterator[memoryview]:
    """Bytes of what was produced for ``spec``, checked against it."""
    if isinstance(made, torch.Tensor):
        if tuple(made.shape) != spec.shape:
            raise _mismatch(spec, "shape", list(made.shape), list(spec.shape))
        yield from _bytes(spec, made)
        return
    rows = 0
    for slab in made:
        if not spec.shape or slab.dim() == 0 or tuple(slab.shape[1:]) != spec.shape[1:]:
            raise _mismatch(spec, "a slab's shape", list(slab.shape), f"rows of {list(spec.shape)}")
        rows += slab.shape[0]
        if rows > spec.shape[0]:
            break
        yield from _bytes(spec, slab)
    if not spec.shape or rows != spec.shape[0]:
        raise _mismatch(spec, "the number of rows", rows, f"those of {list(spec.shape)}")


def _bytes(spec: TensorSpec, tensor: torch.Tensor) -> Iterator[memoryview]:
    if tensor.dtype != DTYPES[spec.dtype][0]:
        raise _mismatch(spec, "dtype", CODES.get(tensor.dtype, tensor.dtype), spec.dtype)
    if tensor.is_meta or tensor.layout != torch.strided:
        raise _mismatch(spec, "storage", f"{tensor.device}, {tensor.layout}", "a dense tensor with data")
    if tensor.numel():
        plain = tensor.detach().resolve_conj().resolve_neg().cpu()
        if not plain.is_contiguous():
            plain = _POOL.empty(tuple(plain.shape), plain.dtype).copy_(plain)
        yield plain.reshape(-1).view(torch.uint8).numpy().data


def _mismatch(spec: TensorSpec, what: str, value: object, expected: object) -> CheckpointError:
    return CheckpointError(f"tensor {short(spec.name)}: {what} produced is {short(value)}, expected {short(expected)}")
