"""Linear algebra where the matrix lies."""

from __future__ import annotations

import torch


def cholesky_(system: torch.Tensor) -> torch.Tensor | None:
    """The lower factor of a symmetric ``system`` (n, n), in its memory; None where there is none, and ``system`` is
    spoilt.

    Factored by columns, as LAPACK does it in place: the rows of ``system`` then hold the factor's transpose.
    """
    factor, failed = system.mT, torch.zeros((), dtype=torch.int32, device=system.device)
    torch.linalg.cholesky_ex(factor, out=(factor, failed))
    return None if int(failed) else factor
