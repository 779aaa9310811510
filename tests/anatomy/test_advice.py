"""What inference engines want is said of a shape that breaks it, when the parent did not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.benchmarks.test_halving import TINY
from transformers import NemotronHConfig

import secateur as sc


@pytest.mark.parametrize(("parent", "child", "told"), [(64, 40, True), (64, 32, False), (48, 40, False)])
def test_heads_that_no_kernel_knows(tmp_path: Path, parent: int, child: int, told: bool) -> None:
    raw = NemotronHConfig(**{**TINY, "head_dim": parent}).to_dict() | {"architectures": ["NemotronHForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    notes = " ".join(sc.plan(sc.open(tmp_path / "config.json"), head_dim=child).notes)
    assert ("vLLM on a CPU: its attention kernels know heads of" in notes) is told
