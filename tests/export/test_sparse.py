"""Bitmaps in place of zeros: as many bytes as promised, and back to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.errors import UsageError
from secateur.export.formats import bitmap
from secateur.export.packed import FOLDER, expand
from secateur.export.sparse import write_sparse
from secateur.model import open_model
from tests.cli.command import secateur
from tests.cli.models import Pool
from tests.contract.harness import write


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.floats(0, 1), st.integers(0, 99))
def test_any_tensor_comes_back(shape: list[int], density: float, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        t = torch.randn(shape, generator=g).to(dtype) * (torch.rand(shape, generator=g) < density)
        t.reshape(-1)[0] = -0.0
        parts = bitmap.pack(t)
        assert {n: (p.dtype, tuple(p.shape)) for n, p in parts.items()} == bitmap.shapes(t)
        back = bitmap.unpack(parts, dtype).reshape(shape)
        assert torch.equal(back, t) and torch.equal(torch.signbit(back), torch.signbit(t))


def halved(pool: Pool, folder: Path, dtype: torch.dtype) -> Path:
    """A checkpoint whose matrices are 2:4 sparse."""
    with open_model(pool.get("nemotron_h", dtype=dtype)) as model:
        tensors = {n: model.read(n) for n in model.weights.tensors}
        for t in tensors.values():
            if t.ndim == 2 and t.shape[1] % 4 == 0:
                t.view(t.shape[0], -1, 4)[..., :2] = 0
        return write(folder, model.raw, tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_two_of_four_on_disk_and_back(dtype: torch.dtype, pool: Pool, tmp_path: Path) -> None:
    sparse = halved(pool, tmp_path / "sparse", dtype)
    done = secateur("export", sparse, "--to", "sparse", "--out", tmp_path / "small")
    assert done.code == 0, done.err
    with open_model(sparse) as a, expand(tmp_path / "small", tmp_path / "whole") as b:
        assert set(a.weights.tensors) == set(b.weights.tensors) and a.raw == b.raw
        assert all(torch.equal(a.read(n), b.read(n)) for n in a.weights.tensors)
        matrix = max(a.weights.tensors.values(), key=lambda i: i.nbytes if len(i.shape) == 2 else 0)
    small = sum(p.stat().st_size for p in (tmp_path / "small" / FOLDER).glob("*.safetensors"))
    assert small < 0.8 * sum(p.stat().st_size for p in sparse.glob("*.safetensors"))
    kept = bitmap.shapes(
        torch.ones(matrix.shape, dtype=dtype) * torch.tensor([0, 0, 1, 1]).repeat(matrix.shape[1] // 4)
    )
    nbytes = sum(torch.Size(s).numel() * d.itemsize for d, s in kept.values())
    assert nbytes <= matrix.nbytes * (0.5 + 1 / 8 / dtype.itemsize) + 16


def test_nothing_to_gain_is_said(pool: Pool, tmp_path: Path) -> None:
    with open_model(pool.get("llama")) as model, pytest.raises(UsageError, match="enough zeros"):
        write_sparse(model, tmp_path / "small")
    assert not (tmp_path / "small").exists()
