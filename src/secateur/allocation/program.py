"""The problem as a binary program for HiGHS (Huangfu & Hall, 2018), through scipy.

    x[i, o] in {0, 1},   sum over o of x[i, o] = 1,   lower_r <= sum of cost[i, o, r] x[i, o] <= upper_r

HiGHS works in floating point with tolerances, so every answer is checked here in whole numbers.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.allocation.problem import Choice, Problem
from secateur.errors import SecateurError

_INFEASIBLE = 2  # scipy's status
_TRIES = 8


class Program:
    """``objective`` and the options of :class:`Flat` run over the same m entries."""

    def __init__(self, problem: Problem) -> None:
        from scipy.sparse import csr_array

        self.problem, flat = problem, problem.flat
        self.m = len(flat.item)
        # rows divided by their common divisor keep the numbers near 1, where tolerances are harmless
        self.unit = np.maximum(1, np.gcd.reduce(flat.cost, axis=0))
        self.rows = flat.cost.T // self.unit[:, None]
        ones = np.ones(self.m)
        self.one_each = csr_array((ones, (flat.item, np.arange(self.m))), shape=(len(problem.items), self.m))

    def solve(
        self, objective: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> Choice | None:
        """The choice of least objective whose costs lie within ``lower`` and ``upper`` (resources,), None if none does.

        Raises SecateurError when the numbers are too large for the solver's tolerance.
        """
        low, high = np.ceil(lower / self.unit), np.floor(upper / self.unit)
        if (low > high).any():
            return None
        for _ in range(_TRIES):
            choice = self._once(objective, low, high)
            if choice is None:
                return None
            cost = np.array(self.problem.cost(choice)) // self.unit
            over, under = np.maximum(cost - high, 0), np.maximum(low - cost, 0)
            if not over.any() and not under.any():
                return choice
            high, low = high - over, low + under
            if (low > high).any():
                break
        raise SecateurError(
            "the costs are too large for the tolerance of the integer solver",
            hint="measure them in a larger unit, or use the solver 'dynamic'",
        )

    def _once(self, objective: NDArray[np.float64], low: Any, high: Any) -> Choice | None:
        from scipy.optimize import Bounds, LinearConstraint, milp

        limits = [LinearConstraint(self.one_each, 1, 1), LinearConstraint(self.rows, low, high)]
        found = milp(objective, constraints=limits, integrality=1, bounds=Bounds(0, 1), options={"mip_rel_gap": 0.0})
        if found.status == _INFEASIBLE:
            return None
        if found.x is None:
            raise SecateurError(f"the integer solver ended without an answer: {found.message}")
        return self._read(found.x)

    def least_share(self) -> tuple[float, Choice] | None:
        """The smallest s such that s times every budget that is not exact is enough, and a choice that shows it."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array, hstack

        flat = self.problem.flat
        share = np.where(flat.exact, 0.0, np.maximum(flat.budget, 1) / self.unit)
        rows = np.hstack([self.rows, -share[:, None]])
        low = np.where(flat.exact, flat.budget / self.unit, -np.inf)
        high = np.where(flat.exact, flat.budget / self.unit, 0.0)
        one_each = hstack([self.one_each, csr_array((len(self.problem.items), 1))])
        kinds = np.r_[np.ones(self.m), 0]
        bounds = Bounds(np.zeros(self.m + 1), np.r_[np.ones(self.m), np.inf])
        limits = [LinearConstraint(one_each, 1, 1), LinearConstraint(rows, low, high)]
        found = milp(np.r_[np.zeros(self.m), 1.0], constraints=limits, integrality=kinds, bounds=bounds)
        return None if found.x is None else (float(found.x[-1]), self._read(found.x[:-1]))

    def _read(self, x: NDArray[np.float64]) -> Choice:
        first = np.r_[self.problem.flat.first, self.m]
        return tuple(int(x[a:b].argmax()) for a, b in itertools.pairwise(first))
