from __future__ import annotations

from pathlib import Path

import pytest

from .models import TEXT, hybrid


@pytest.fixture(scope="session")
def parent_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hybrid(tmp_path_factory.mktemp("models") / "parent")


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "held-out.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path
