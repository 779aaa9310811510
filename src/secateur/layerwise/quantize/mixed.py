"""Bits by what they cost the layers, not the same everywhere (CVXQ, arXiv 2409.02026; HIGGS, arXiv 2411.17525).

Both papers find the loss of a model to rise about linearly with the relative squared errors of its linears, and share
out bits under that sum. Here a first walk through the model as it is rounds every linear at every width, takes the
error from its Gram, and :mod:`secateur.allocation` solves

    min sum_i error_i(b_i) / energy_i     subject to     sum_i bytes_i(b_i) <= what ``bits`` everywhere would take

Differences from the papers: no gradients and no fitted sensitivities; the widths are solved for as whole numbers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from secateur.allocation import SOLVERS, single
from secateur.calibration.walker import Progress, walk
from secateur.errors import UsageError
from secateur.layerwise.base import Method, Problem, Solution, Unfit
from secateur.layerwise.engine import Engine
from secateur.layerwise.observe import Grams
from secateur.layerwise.quantize import rtn
from secateur.model import Model

WIDTHS = (2, 3, 4, 5, 6, 8)
Curve = dict[int, tuple[int, float]]
"""Bits -> (bytes, relative squared error) of one tensor."""


def curves(
    model: Model,
    windows: torch.Tensor,
    settings: rtn.Settings,
    where: Mapping[str, Any],
    batch: int,
    progress: Progress | None = None,
) -> dict[str, Curve]:
    """Of every linear that one layer alone uses, on ``windows`` (samples, tokens). ``where``: dtype and device."""
    found: dict[str, Curve] = {}

    def note(problem: Problem, _: Any) -> Solution:
        mine = found.setdefault(problem.name, dict.fromkeys(WIDTHS, (0, 0.0)))
        for bits, (nbytes, error) in mine.items():
            solution = rtn.solve(problem, replace(settings, bits=bits))
            mine[bits] = nbytes + solution.nbytes, error + solution.error / max(problem.energy, 1e-300)
        raise Unfit("measured only")

    probe = Method("curves", "rounding errors at every width", "gram", dict, note)
    batches = list(torch.split(windows, batch))
    with tempfile.TemporaryDirectory() as work:
        grams = Grams("gram", len(batches), lambda p: not p.shared)
        engine = Engine(model, Path(work), grams, lambda place: (probe, None))
        walk(model, batches, [grams], edit=engine.edit, progress=progress, **where)
    return found


def shared_out(found: Mapping[str, Curve], bits: float, solver: str) -> dict[str, int]:
    """Tensor -> bits. BudgetError when nothing fits, UsageError for an unknown solver or a mean out of range."""
    if solver not in SOLVERS:
        raise UsageError(f"--allocate {solver!r}: expected uniform or one of {', '.join(SOLVERS)}")
    if not WIDTHS[0] <= bits <= WIDTHS[-1]:
        raise UsageError(f"--bits {bits:g}: expected {WIDTHS[0]} to {WIDTHS[-1]}")
    items = {name: list(curve.values()) for name, curve in found.items()}
    budget = int(sum(_between(curve, bits) for curve in found.values()))
    choice = SOLVERS[solver](single(items, "bytes", budget)).choice
    return {name: WIDTHS[o] for name, o in zip(items, choice, strict=True)}


def _between(curve: Curve, bits: float) -> float:
    """Bytes at a width that may lie between two."""
    low = max(w for w in WIDTHS if w <= bits)
    high = min(w for w in WIDTHS if w >= bits)
    share = 0.0 if high == low else (bits - low) / (high - low)
    return (1 - share) * curve[low][0] + share * curve[high][0]
