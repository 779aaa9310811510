"""What a meter is: a number for a shape, in closed form, from the config alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from secateur.errors import UsageError
from secateur.model import Model


@dataclass(frozen=True, slots=True)
class Workload:
    """``batch`` sequences of ``context`` tokens each."""

    context: int = 4096
    batch: int = 1

    def __post_init__(self) -> None:
        if self.context < 1 or self.batch < 1:
            raise UsageError(
                f"context {self.context}, batch {self.batch}: expected at least one token and one sequence"
            )


#: (axis sizes, old indices of the layers that stay) -> amount. Sizes may be arrays of candidates; so is the answer.
Meter = Callable[[Mapping[str, Any], frozenset[int]], Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """``unit``: 'count', 'bytes' or 'seconds', which says how people write amounts. ``meter`` binds it to a model."""

    name: str
    unit: str
    meaning: str
    meter: Callable[[Model, Workload], Meter]
