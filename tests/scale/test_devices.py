"""``--device cuda`` is understood by every command that computes, and refused in one clear message without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.cli.command import done, refused
from tests.evaluate.models import TEXT, hybrid

SMALL = ["--samples", "8", "--length", "16", "--batch", "2"]


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(parent, child, text)"""
    at = tmp_path_factory.mktemp("devices")
    (at / "text.txt").write_text(TEXT)
    parent = hybrid(at / "parent")
    done("prune", parent, "--keep", "ffn=24", "--out", at / "child")
    return parent, at / "child", at / "text.txt"


def commands(road: tuple[Path, Path, Path], out: Path) -> dict[str, list[object]]:
    parent, child, text = road
    return {
        "calibrate": ["calibrate", parent, "--text", text, *SMALL, "--out", out],
        "repair": ["repair", child, "--parent", parent, "--text", text, *SMALL, "--out", out],
        "eval": ["eval", child, "--parent", parent, "--text", text, "--window", "32", "--out", out],
        "eval streamed": ["eval", child, "--text", text, "--window", "32", "--stream", "--out", out],
        "distill": [
            "distill", child, "--teacher", parent, "--text", text, "--tokens", "128", "--length", "16", "--batch", "4",
            "--out", out,
        ],
    }  # fmt: skip


NAMES = ["calibrate", "repair", "eval", "eval streamed", "distill"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", NAMES)
def test_without_a_gpu(name: str, road: tuple[Path, Path, Path], tmp_path: Path) -> None:
    refused(*commands(road, tmp_path / "out")[name], "--device", "cuda", says="device 'cuda' cannot be used")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT TESTED: --device cuda needs a GPU")
@pytest.mark.parametrize("name", NAMES)
def test_with_a_gpu(name: str, road: tuple[Path, Path, Path], tmp_path: Path) -> None:
    done(*commands(road, tmp_path / "out")[name], "--device", "cuda")
    assert (tmp_path / "out").exists()


def test_names_that_are_none(road: tuple[Path, Path, Path], tmp_path: Path) -> None:
    for name in NAMES:
        refused(*commands(road, tmp_path / "out")[name], "--device", "gpu", says="device 'gpu'")
