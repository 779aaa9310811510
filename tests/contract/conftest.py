from __future__ import annotations

import pytest

from .harness import Parent, build
from .rows import ROWS


@pytest.fixture(scope="session")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parent]:
    """Saved tiny models, built once per test process."""
    return _Lazy(tmp_path_factory)


class _Lazy(dict):  # type: ignore[type-arg]
    def __init__(self, factory: pytest.TempPathFactory) -> None:
        super().__init__()
        self.factory = factory

    def __missing__(self, name: str) -> Parent:
        assert name in ROWS
        self[name] = build(name, self.factory.mktemp(name) / "parent")
        return self[name]
