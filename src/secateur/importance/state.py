"""SSM state entries (``ssm_state``) by what passes through them; statistics: :mod:`secateur.calibration.states`.

    output energy   s_n = sqrt( sum over heads of  sum_t P_t[n] C_t[n]^2 )
    balanced        s_n = sqrt( sum over heads of  (sum_t P_t[n]) (sum_t Q_t[n]) )

Heads that share B and C (one group) share their kept entries, so a score covers the group. The first is the squared
error of the scan's output when entry n alone goes, exactly where contributions of entries are uncorrelated; the second
also counts what an input does to outputs later than its own energy shows, as in balanced truncation. Shapes: (g, n) for
Mamba-2, (n,) for Mamba-1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secateur.anatomy.anatomy import Anatomy, Scope
from secateur.calibration.stats import Stats
from secateur.errors import UsageError
from secateur.importance.base import Slots

_Found = dict[tuple[str, Scope], NDArray[np.float64]]


def output_energy(anatomy: Anatomy, stats: Stats) -> _Found:
    """Scores of axis ``n``. Raises UsageError without state statistics."""
    return _scores(anatomy, {s: _get(stats, s, "energy") for s in anatomy.scopes["n"]})


def balanced(anatomy: Anatomy, stats: Stats) -> _Found:
    """Scores of axis ``n`` by controllability times observability. Raises UsageError without state statistics."""
    return _scores(anatomy, {s: _get(stats, s, "control") * _get(stats, s, "observe") for s in anatomy.scopes["n"]})


def _get(stats: Stats, scope: Scope, what: str) -> NDArray[np.float64]:
    found = stats.get(int(scope), "states", "out", what)
    if found is None:
        raise UsageError(
            f"the statistics say nothing about the SSM state of layer {scope}",
            hint="calibrate again with --device cpu (a GPU's own kernels hide the state), or keep ssm_state",
        )
    return found


def _scores(anatomy: Anatomy, energies: dict[Scope, NDArray[np.float64]]) -> _Found:
    slots = Slots.of(anatomy, "n")
    return {("n", s): np.sqrt(e.reshape(*slots.shape[:-1], -1, slots.shape[-1]).sum(-2)) for s, e in energies.items()}
