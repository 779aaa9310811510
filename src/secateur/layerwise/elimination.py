"""Inverses of many rows that each lose inputs of their own, one tile after another, in memory that no row has a whole
matrix of (OBC, OBQ, ZipLM).

Glossary: ``P`` = H^-1, one for all rows at first; ``S`` the tile a row loses, ``c`` its inputs; ``L L^T`` = P_SS.

    P' = P - P_:,S [P_SS]^-1 P_S,: = P - V^T V,     V = L^-1 P_S,: (c, d)

Only the V of all steps are kept, and the diagonal tiles of P, which choose: a line of P is one product with them. That
is 1/4 of the work of changing P itself for half of the inputs, and reads what that would read and write.
"""

from __future__ import annotations

import torch

_BYTES = 1 << 24
"""Memory for the V of rows that run together: in a processor's cache they are read many times as fast."""


def rows_at_a_time(width: int, lost: int) -> int:
    """Rows of ``width`` inputs that lose ``lost`` of them, so that what is kept of them stays small."""
    return max(1, _BYTES // (8 * width * max(1, lost)))


class Elimination:
    """``inverse`` (d, d) of ``rows`` rows that lose at most ``steps`` tiles of ``size`` neighbouring inputs.

    ``tiles`` (rows, d / size, size, size): diagonal tiles of every row's P; of those that are gone, rounding errors.
    """

    def __init__(self, inverse: torch.Tensor, rows: int, steps: int, size: int = 1) -> None:
        d = inverse.shape[0]
        inside = inverse.view(d // size, size, d // size, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        self.inverse, self.size = inverse, size
        self.tiles = inside.repeat(rows, 1, 1, 1)
        self._told = inverse.new_empty(rows, steps * size, d)
        self._count = 0
        self._every = torch.arange(rows, device=inverse.device)
        self._span = torch.arange(size, device=inverse.device)

    def lose(self, tile: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every row loses its ``tile`` (rows,). Returns (L (rows, size, size), V (rows, size, d))."""
        span = tile[:, None] * self.size + self._span
        told = self._told[:, : self._count]
        seen = told.gather(2, span[:, None].expand(-1, self._count, -1))
        lines = torch.baddbmm(self.inverse[span], seen.mT, told, alpha=-1)
        own = lines.gather(2, span[:, None].expand(-1, self.size, -1))
        lower: torch.Tensor = torch.linalg.cholesky(own)
        v: torch.Tensor = torch.linalg.solve_triangular(lower, lines, upper=False)
        self._told[:, self._count : self._count + self.size] = v
        self._count += self.size
        across = v.view(len(v), self.size, -1, self.size).transpose(1, 2)  # (rows, tiles, rows of V, size)
        self.tiles -= (across[..., :, None] * across[..., None, :]).sum(2)
        return lower, v


def pulled(change: torch.Tensor, lower: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """What a change (rows, n, size) of a tile does to all weights, (rows, n, d): change [P_SS]^-1 P_S,:, from what
    :meth:`Elimination.lose` returned."""
    solved: torch.Tensor = torch.linalg.solve_triangular(lower, change.mT, upper=False)
    return solved.mT @ v


def eliminated_reference(inverse: torch.Tensor, gone: torch.Tensor) -> torch.Tensor:
    """P (d, d) of one row without the inputs ``gone`` (n,), from the whole matrix: zero where they are."""
    lines = inverse[gone]
    solved: torch.Tensor = torch.linalg.solve(lines[:, gone], lines)
    return inverse - lines.T @ solved
