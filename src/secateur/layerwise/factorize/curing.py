"""CUR: real columns and rows of the weight around a small core (CURing, arXiv 2505.04211).

Glossary: ``W`` (m, d), ``I = |W| * sqrt(diag C)`` (m, d) the Wanda importance, ``P`` r rows and ``Q`` r columns picked
by DEIM from the singular vectors of I, ``Cols = W[:, Q]`` (m, r), ``Rows = W[P]`` (r, d).

    W ~ Cols U Rows,      U = Cols^+ W Rows^+  (r, r), optimal in Frobenius norm for these columns and rows

Exact when rank(W) <= r and DEIM finds as many independent rows and columns. The core is folded into the left factor
(r^2 numbers fewer to store); the right one holds rows of W as they are. CURing then trains U with a layer-wise loss;
here it is closed form only, and with ``on_outputs`` U is the best one for the layer's outputs instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.layerwise.factorize.factors import Factors, root_of
from secateur.layerwise.factorize.method import LowRank, low_rank


def curing(weight: Tensor, gram: Tensor, rank: int, on_outputs: bool = False) -> Factors:
    """Factors (Cols U, Rows) of ``weight`` (m, d)."""
    wide = weight.double()
    rows, columns = picked(wide, gram, rank)
    cols, right = wide[:, columns], wide[rows]
    return Factors(cols @ core(wide, cols, right, gram if on_outputs else None), right)


def picked(weight: Tensor, gram: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(rows, columns) that DEIM picks from the importance matrix."""
    importance = weight.abs() * gram.double().diagonal().clamp(min=0).sqrt()
    u, _, vt = torch.linalg.svd(importance if bool(importance.any()) else weight, full_matrices=False)
    return deim(u[:, :rank]), deim(vt[:rank].T)


def core(weight: Tensor, cols: Tensor, rows: Tensor, gram: Tensor | None = None) -> Tensor:
    """U (r, r) of least || (W - Cols U Rows) S ||_F, where S is the root of ``gram``, or the identity."""
    if gram is not None:
        s = root_of(gram).root
        weight, rows = weight @ s, rows @ s
    best: Tensor = torch.linalg.pinv(cols) @ weight @ torch.linalg.pinv(rows)
    return best


def deim(basis: Tensor) -> Tensor:
    """One index per column of ``basis`` (n, r): where each vector is least explained by those before it.

    Discrete empirical interpolation (Chaturantabut, Sorensen 2010): interpolate column j in the indices chosen so far,
    take the largest entry of what is left.
    """
    chosen = [int(basis[:, 0].abs().argmax())]
    for j in range(1, basis.shape[1]):
        known = torch.linalg.lstsq(basis[chosen, :j], basis[chosen, j : j + 1]).solution
        rest = (basis[:, j : j + 1] - basis[:, :j] @ known).abs().flatten()
        rest[chosen] = -1.0
        chosen.append(int(rest.argmax()))
    return torch.tensor(chosen, device=basis.device)


@dataclass(frozen=True)
class Settings(LowRank):
    """``on_outputs``: the core that is best for the layer's outputs, not for the weight."""

    on_outputs: bool = False


METHOD = low_rank("curing", "real rows and columns around a core, CUR (arXiv 2505.04211)", "gram", curing, Settings)
