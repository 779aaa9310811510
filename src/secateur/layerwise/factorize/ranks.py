"""Ranks by what they cost the layers, not the same share everywhere.

A first walk through the model as it is takes the whitened spectrum of every linear; then ranks are shared out by
:mod:`secateur.allocation`: least sum of relative squared errors, tail_i(r) / total_i, within the parameters that the
uniform ratio would use. A linear may also stay whole. SVD-LLM and LoRD spread ranks evenly or by search; spectra need
none, but how errors of different linears add up no layer-wise method knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from secateur.allocation import SOLVERS, single
from secateur.calibration.walker import Progress, walk
from secateur.errors import UsageError
from secateur.layerwise.base import Method, Problem, Solution, Unfit
from secateur.layerwise.engine import Engine
from secateur.layerwise.factorize.svd_llm import spectrum
from secateur.layerwise.observe import Grams
from secateur.model import Model

STEPS = 20
"""Ranks that are looked at between 1 and the break-even."""


@dataclass(frozen=True)
class Spectrum:
    """One linear: its sizes, how many matrices are stacked in it, and sigma^2 summed over them, descending."""

    m: int
    d: int
    matrices: int
    energy: torch.Tensor

    @property
    def whole(self) -> int:
        """Parameters of the weight."""
        return self.matrices * self.m * self.d

    def options(self) -> list[tuple[int, float]]:
        """(parameters, relative squared error) for ranks from few to many; the last is the weight itself."""
        total = float(self.energy.sum())
        left = total - self.energy.cumsum(0)
        found = [(self.matrices * r * (self.m + self.d), float(left[r - 1]) / max(total, 1e-300)) for r in self.ranks()]
        return [*found, (self.whole, 0.0)]

    def ranks(self) -> list[int]:
        """Ranks that save parameters, evenly spaced."""
        most = (self.m * self.d - 1) // (self.m + self.d)
        return sorted({max(1, round(most * i / STEPS)) for i in range(1, STEPS + 1)}) if most >= 1 else []


def spectra(
    model: Model, windows: torch.Tensor, work: Path, settings: Mapping[str, Any], batch: int, progress: Progress | None
) -> dict[str, Spectrum]:
    """Of every linear that one layer alone uses, on ``windows`` (samples, tokens). ``settings``: dtype and device."""
    found: dict[str, Spectrum] = {}

    def note(problem: Problem, _: Any) -> Solution:
        m, d = problem.weight.shape
        mine = spectrum(problem.weight, problem.gram.matrix).square()
        before = found.get(problem.name)
        energy = mine if before is None else before.energy + mine
        found[problem.name] = Spectrum(m, d, 1 if before is None else before.matrices + 1, energy)
        raise Unfit("measured only")

    probe = Method("spectrum", "singular values of whitened weights", "gram", dict, note)
    batches = list(torch.split(windows, batch))
    engine = Engine(model, work, Grams("gram", len(batches), lambda p: not p.shared), lambda place: (probe, None))
    walk(model, batches, [engine.grams], edit=engine.edit, progress=progress, **settings)
    return found


def shared_out(found: Mapping[str, Spectrum], ratio: float, solver: str = "greedy") -> dict[str, int | None]:
    """Linear -> rank, None where it stays whole. BudgetError when nothing fits, UsageError for an unknown solver."""
    if solver not in SOLVERS:
        raise UsageError(f"--allocate {solver!r}: expected uniform or one of {', '.join(SOLVERS)}")
    if not 0 < ratio <= 1:
        raise UsageError(f"ratio {ratio:g}: expected the part of the parameters to keep, above 0 and up to 1")
    items = {n: s.options() for n, s in found.items()}
    budget = int(ratio * sum(s.whole for s in found.values()))
    chosen = SOLVERS[solver](single(items, "parameters", budget)).choice
    return {n: _rank(found[n].ranks(), o) for n, o in zip(items, chosen, strict=True)}


def _rank(ranks: Sequence[int], option: int) -> int | None:
    return ranks[option] if option < len(ranks) else None
