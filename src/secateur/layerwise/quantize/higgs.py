"""HIGGS (Malinovskii et al., arXiv 2411.17525): rotate each group until its weights look Gaussian, then use the grid
that is best for a Gaussian. Reads no text.

    u = R w / s,   s = ||w||_2 / sqrt(g)         R = Hadamard(g) diag(random signs) / sqrt(g), orthonormal
    w' = s R^T grid[argmin_k ||u - grid_k||]      so that ||w - w'|| = s ||u - u'||

Grid points are single numbers (``vector=1``) or pairs (2): with n = 2^(b vector) points, b bits a weight either way.
Shapes: W (m, d), groups of g columns, g a power of two that divides d. Differences from known code: scalar levels come
from the normal density, not from samples; one vector of signs for all groups, drawn under ``seed``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from secateur.errors import UsageError
from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.quantize.levels import gaussian_levels, gaussian_pairs, nearest

_MOST_POINTS = 256


@dataclass(frozen=True, slots=True)
class Settings:
    """``group``: at most so many columns share a scale and a rotation; ``vector``: weights per grid point."""

    bits: int = 4
    group: int = 128
    vector: Literal[1, 2] = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise UsageError(f"--bits {self.bits}: expected 1 to 8")


def solve(problem: Problem, settings: Settings) -> Solution:
    """Rotate, snap, rotate back."""
    m, d = problem.weight.shape
    size = width(d, settings.group)
    signs = torch.randint(0, 2, (size,), generator=torch.Generator().manual_seed(settings.seed)).double() * 2 - 1
    vector = settings.vector if size % 2 == 0 and 2 ** (2 * settings.bits) <= _MOST_POINTS else 1
    turned = rotate(problem.weight.reshape(m, -1, size) * signs)
    norm = turned.norm(dim=-1, keepdim=True) / size**0.5
    scale = norm.to(problem.dtype).double()
    codes, points = snap(turned / torch.where(scale > 0, scale, 1.0), settings.bits, vector)
    weight = rotate(points * scale) * signs  # the Hadamard matrix is symmetric: its own inverse
    weight = weight.reshape(m, d).to(problem.dtype).double()
    nbytes = (m * d * settings.bits + 7) // 8 + scale.numel() * problem.dtype.itemsize
    parts = {"codes": codes.to(torch.int16), "scale": scale[..., 0].to(problem.dtype), "signs": signs.to(torch.int8)}
    notes = {"bits": settings.bits, "group": size, "vector": vector, "seed": settings.seed}
    return Solution(weight, parts, problem.error(weight), nbytes, notes)


def snap(u: Tensor, bits: int, vector: int) -> tuple[Tensor, Tensor]:
    """(codes, grid points) of rotated weights ``u`` (.., g)."""
    if vector == 1:
        levels = gaussian_levels(2**bits)
        codes = nearest(u, levels)
        return codes, levels[codes]
    from scipy.spatial import cKDTree

    points = gaussian_pairs(2 ** (2 * bits))
    found = cKDTree(points.numpy()).query(u.reshape(-1, 2).numpy())[1]
    codes = torch.from_numpy(found).reshape(*u.shape[:-1], -1)
    return codes, points[codes].reshape(u.shape)


def width(columns: int, group: int) -> int:
    """The largest power of two that divides ``columns`` and is at most ``group`` (0: no limit)."""
    power = columns & -columns
    while group and power > group:
        power //= 2
    return power


def rotate(x: Tensor) -> Tensor:
    """Orthonormal Hadamard transform of the last dimension, a power of two, in n log n steps."""
    size = x.shape[-1]
    out, half = x.reshape(-1, size), 1
    while half < size:
        pair = out.reshape(-1, size // (2 * half), 2, half)
        out = torch.stack([pair[:, :, 0] + pair[:, :, 1], pair[:, :, 0] - pair[:, :, 1]], 2).reshape(-1, size)
        half *= 2
    turned: Tensor = out / size**0.5
    return turned.reshape(x.shape)


METHOD = Method(
    "higgs", "HIGGS (2411.17525): random rotation and a Gaussian's best grid; no text", "nothing", Settings, solve
)
