from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from . import tiny


@dataclass(frozen=True)
class Family:
    """A parent, its narrower child and a text. Nobody may write into them."""

    parent: Path
    child: Path
    text: Path


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Family:
    folder = tmp_path_factory.mktemp("llama")
    parent = tiny.parent(folder / "parent")
    return Family(parent, tiny.child(folder / "child", parent), tiny.text(folder))


@pytest.fixture(scope="session")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Family:
    folder = tmp_path_factory.mktemp("hybrid")
    parent = tiny.parent(folder / "parent", "nemotron_h", dtype=torch.bfloat16)
    return Family(parent, tiny.child(folder / "child", parent, ssm_heads=4, ffn=24), tiny.text(folder))
