"""Weight magnitude: the L2 norm of all matrix entries that belong to a unit.

Glossary: ``a`` an axis, ``u`` one of its units below its enclosing units, ``W`` every matrix ``a`` runs through.

    score[u] = sqrt( sum over W of sum of W[entries of u]^2 )

Differs from Torch-Pruning's group magnitude (arXiv 2301.12900) only in that units are read off layouts, not traced.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from secateur.anatomy.anatomy import Anatomy
from secateur.importance.base import Reader, Scores
from secateur.importance.units import square_sums, sum_units


def score(anatomy: Anatomy, read: Reader, axes: Iterable[str], seed: int) -> Scores:
    """Root of the summed squares per unit. Each tensor is read once."""
    return {key: np.sqrt(energy) for key, energy in sum_units(anatomy, axes, read, square_sums).items()}
