"""Was a stage worth its cost? Kendall's tau between the ranks of two stages (tau-b, so ties count for neither side).

1: the cheaper stage ranks as the dearer one does, which could have been skipped; near 0: the cheaper one chose at
random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from secateur.search.outcome import Agreement


def agreement(before: str, after: str, first: Sequence[float], second: Sequence[float]) -> Agreement | None:
    """Between the losses of the same shapes at two stages; None for fewer than two shapes."""
    from scipy.stats import kendalltau

    if len(first) < 2:
        return None
    tau = float(kendalltau(first, second).statistic)
    return Agreement(before, after, 0.0 if math.isnan(tau) else tau, len(first))
