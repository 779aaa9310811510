"""Plain truncated SVD: the best low rank of the weight itself, blind to what it reads. The baseline of this folder.

W ~ U_r S_r V_r^T,     || W - W_r ||_F^2 = sum of the squares of the dropped singular values (Eckart, Young 1936)
"""

from __future__ import annotations

from torch import Tensor

from secateur.layerwise.factorize.factors import Factors, truncated
from secateur.layerwise.factorize.method import low_rank


def svd(weight: Tensor, gram: Tensor, rank: int) -> Factors:
    """Factors of ``weight`` (m, d); the Gram matrix is not looked at."""
    return truncated(weight, rank)[0]


METHOD = low_rank("svd", "truncated SVD of the weight", "nothing", svd)
