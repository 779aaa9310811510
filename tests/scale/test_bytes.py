"""The same statistics are the same file, whatever order they came in: what lets an interrupted run be compared."""

from __future__ import annotations

from pathlib import Path

import torch

from secateur.calibration.stats import Stats, load_stats
from secateur.model import open_model
from tests.evaluate.models import hybrid


def test_the_same_statistics_are_the_same_bytes(tmp_path: Path) -> None:
    model = open_model(hybrid(tmp_path / "parent"))
    tensors = {f"{i}/a/out/sum": torch.arange(i + 1, dtype=torch.float64) for i in range(12)}
    tensors["0/b/out/tokens"] = torch.tensor([3])
    about = {"tokens": 7, "text": ["x"], "seed": 0}
    files = set()
    for i in range(8):
        order = list(tensors.items())[:: 1 if i % 2 else -1]
        Stats(model.config_sha256, dict(order), about).save(tmp_path / "stats.safetensors")
        files.add((tmp_path / "stats.safetensors").read_bytes())
    assert len(files) == 1
    back = load_stats(tmp_path / "stats.safetensors", model)
    assert back.tensors.keys() == tensors.keys() and back.about == about
    assert all(torch.equal(back.tensors[k], v) for k, v in tensors.items())
    assert {p.name for p in tmp_path.iterdir()} == {"parent", "stats.safetensors"}
