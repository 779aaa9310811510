from __future__ import annotations

from collections.abc import Callable

import pytest

from secateur.calibration.stats import Stats
from tests.contract.conftest import parents as parents
from tests.contract.harness import Parent

from .plain import measure


@pytest.fixture(scope="session")
def measured(parents: dict[str, Parent]) -> Callable[[str], Stats]:
    """Statistics of the tiny models in float64, taken once each."""
    known: dict[str, Stats] = {}

    def get(name: str) -> Stats:
        if name not in known:
            known[name] = measure(parents[name].folder)
        return known[name]

    return get
