"""A small checkpoint for the tests of this folder, and bit-exact comparison."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from secateur.checkpoint import CODES, TensorSpec, TensorStore, write_json, write_tensors


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        "a.weight": torch.randn(4, 3, generator=generator).bfloat16(),
        "b.weight": torch.randn(2, 2, 2, generator=generator),
        "b.bias": torch.randn(5, generator=generator).double(),
        "c.empty": torch.empty(0, 3),
        "c.scale": torch.tensor(2.5),
        "d.mask": torch.tensor([True, False, True]),
    }


def write(folder: Path, *, shard_bytes: int = 10**9) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    made = tensors()
    specs = [TensorSpec(name, CODES[tensor.dtype], tuple(tensor.shape)) for name, tensor in made.items()]
    write_tensors(folder, specs, lambda spec: made[spec.name], shard_bytes=shard_bytes)
    write_json(folder / "config.json", {"model_type": "tiny"})
    return made


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (one.dtype, one.shape, bits(one)) == (other.dtype, other.shape, bits(other))


def holds(folder: Path, expected: dict[str, torch.Tensor]) -> bool:
    """Whether the whole checkpoint opens and every tensor is bit for bit the expected one."""
    store = TensorStore.open(folder)
    return store.tensors.keys() == expected.keys() and all(same(store.read(n), t) for n, t in expected.items())


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def safetensors_bytes(header: object, data: bytes) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data
