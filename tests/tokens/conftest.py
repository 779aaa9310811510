from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import parents  # noqa: F401  the fixture
from tests.contract.harness import Parent, load


@pytest.fixture(scope="session")
def networks(parents: dict[str, Parent]) -> Any:  # noqa: F811
    """Tiny float64 models by row name, loaded once; tests leave them as they were."""
    return _Lazy(parents)


class _Lazy(dict):  # type: ignore[type-arg]
    def __init__(self, parents: dict[str, Parent]) -> None:  # noqa: F811
        super().__init__()
        self.parents = parents

    def __missing__(self, name: str) -> Any:
        self[name] = load(self.parents[name].folder)
        return self[name]
