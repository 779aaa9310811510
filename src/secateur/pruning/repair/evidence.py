"""What is collected of the text for the least squares of one linear."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from secateur.pruning.repair import strength
from secateur.pruning.repair.ridge import Sums, solve, solve_rows

FEW = 0.5
"""Tokens are kept up to this share of the inputs: at most a quarter of what the Gram would take."""
Rows = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Evidence:
    """Tokens for one linear: as they are while there are fewer than :data:`FEW` of its inputs, then only their sums.

    ``aside``: so many of the first tokens are held back until the strength of the ridge is chosen by them.
    """

    inputs: int
    outputs: int
    aside: int = 0
    held: list[Rows] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    sums: Sums | None = None

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """``x`` (..., inputs), ``y`` (..., outputs)."""
        wide = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        x, y = x.reshape(-1, self.inputs).to(wide), y.reshape(-1, self.outputs).to(wide)
        lacking = self.aside - sum(len(a) for a, _ in self.held)
        if lacking > 0:
            self.held.append((x[:lacking], y[:lacking]))
            x, y = x[lacking:], y[lacking:]
        self._take(x, y)

    def _take(self, x: torch.Tensor, y: torch.Tensor) -> None:
        if len(x):
            self.rows.append((x, y))
        if self.sums is None and sum(len(a) for a, _ in self.rows) > FEW * self.inputs:
            self.sums = Sums.zeros(self.inputs, self.outputs, x.device)
        while self.sums is not None and self.rows:
            self.sums.add(*self.rows.pop(0))

    @property
    def finite(self) -> bool:
        """False when an activation overflowed: nothing can be fitted to that."""
        whole = self.sums is None or self.sums.finite
        return whole and all(bool(torch.isfinite(v).all()) for pair in (*self.held, *self.rows) for v in pair)

    def choose(self, weight: torch.Tensor, *, with_bias: bool) -> float:
        """The strength of the ridge that, fitted to the rest, predicts the tokens held back best."""
        found = strength.DEFAULT
        if self.held and (self.sums is not None or self.rows):
            held = _joined(self.held)
            if self.sums is not None:
                found = strength.from_sums(self.sums, held, weight, with_bias).best()
            else:
                found = strength.from_rows(_joined(self.rows), held, weight, with_bias).best()
        return found

    def solve(self, weight: torch.Tensor, *, damp: float, with_bias: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See :func:`solve`; what was collected is used up, what was held back with it."""
        while self.held:
            self._take(*self.held.pop(0))
        if self.sums is not None:
            return solve(self.sums, weight, damp=damp, with_bias=with_bias, consume=True)
        x, y = _joined(self.rows)
        self.rows.clear()
        return solve_rows(x, y, weight, damp=damp, with_bias=with_bias)


def _joined(pairs: list[Rows]) -> Rows:
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
