"""calibrate, plan and prune as a user types them: one file of statistics serves every criterion."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from secateur.calibration.stats import load_stats
from secateur.cli import app
from secateur.importance import MEASURED
from secateur.importance.depth import LAYER_SCORES
from secateur.model import open_model
from tests.evaluate.models import TEXT, hybrid


def _run(*argv: object) -> str:
    done = CliRunner().invoke(app, [str(a) for a in argv])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(parent, statistics)"""
    place = tmp_path_factory.mktemp("measured")
    parent, text, stats = hybrid(place / "parent"), place / "text.txt", place / "stats.safetensors"
    text.write_text(TEXT)
    given = ("--text", text, "--samples", 2, "--length", 16, "--gradients", "--skip-layers", "iterative")
    assert "32 tokens" in _run("calibrate", parent, *given, "--out", stats)
    return parent, stats


@pytest.mark.parametrize("score", MEASURED)
def test_every_criterion_cuts(score: str, measured: tuple[Path, Path], tmp_path: Path) -> None:
    parent, stats = measured
    _run("prune", parent, "--keep", "ffn=24,ssm_heads=6", "--stats", stats, "--score", score, "--out", tmp_path / "c")
    with open_model(tmp_path / "c") as child:
        assert (child.anatomy.sizes["f"], child.anatomy.sizes["h"]) == (24, 3)
    assert (tmp_path / "c" / "importance.json").is_file()


@pytest.mark.parametrize("score", LAYER_SCORES)
def test_every_layer_score_drops(score: str, measured: tuple[Path, Path], tmp_path: Path) -> None:
    parent, stats = measured
    given = ("--params", "90%", "--keep", "layers=3", "--stats", stats, "--layer-score", score)
    assert "layers" in _run("plan", parent, *given, "--out", tmp_path / "plan.json")
    _run("prune", parent, "--plan", tmp_path / "plan.json", "--stats", stats, "--out", tmp_path / "c")
    with open_model(tmp_path / "c") as child, open_model(parent) as whole:
        assert child.anatomy.n_layers == 3
        assert child.anatomy.count() <= 0.9 * whole.anatomy.count()


def test_statistics_of_a_child_are_not_its_parents(measured: tuple[Path, Path], tmp_path: Path) -> None:
    parent, stats = measured
    _run("prune", parent, "--params", "80%", "--stats", stats, "--out", tmp_path / "c")
    with open_model(parent) as whole:
        assert load_stats(stats, whole).about["samples"] == 2
    refused = CliRunner().invoke(app, ["plan", str(tmp_path / "c"), "--params", "80%", "--stats", str(stats)])
    assert refused.exit_code != 0 and "another model" in str(refused.exception)
