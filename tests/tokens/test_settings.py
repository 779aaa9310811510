"""The value object: what it refuses, and that it travels with a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import secateur
from secateur import TokenReduction
from secateur.errors import UsageError
from secateur.tokens.methods import METHODS
from secateur.tokens.names import METHODS as NAMES
from secateur.tokens.settings import FILE


def test_names_are_those_of_the_registry() -> None:
    assert sorted(METHODS) == list(NAMES)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "exactly one"),
        ({"flops": 0.8, "locations": [1], "ratios": [0.9]}, "exactly one"),
        ({"flops": 0}, "above 0"),
        ({"flops": 1.2}, "above 0"),
        ({"locations": [1], "ratios": [0.4]}, "0.5"),
        ({"locations": [2, 1], "ratios": [0.9, 0.9]}, "rising"),
        ({"locations": [1, 2], "ratios": [0.9]}, "1 ratios for 2"),
        ({"flops": 0.8, "locations": [1], "strengths": [0.0]}, "above"),
        ({"flops": 0.8, "method": "tome"}, "utrc"),
        ({"flops": 0.8, "importance": "attn"}, "scan"),
        ({"flops": 0.8, "prune": 2}, "prune"),
        ({"flops": 0.8, "shortest": 1}, "shortest"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        TokenReduction(**fields)


def test_saved_beside_the_config_and_read_back(tmp_path: Path) -> None:
    asked = TokenReduction(flops=0.7, locations=(1, 3), strengths=(1.0, 0.5), method="evit", seed=3)
    with pytest.raises(UsageError, match=r"config\.json"):
        asked.save(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert asked.save(tmp_path).name == FILE
    assert TokenReduction.load(tmp_path) == asked
    with pytest.raises(AttributeError):
        asked.flops = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{", "not JSON"), ("[]", "version"), ('{"secateur_tokens": 2}', "version"),
     ('{"secateur_tokens": 1, "flop": 1}', "'flop'"), ('{"secateur_tokens": 1, "flops": "x"}', "flops|not supported")],
)  # fmt: skip
def test_a_foreign_file_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UsageError, match=expected):
        TokenReduction.load(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(UsageError, match=FILE):
        TokenReduction.load(tmp_path)


def test_the_saved_one_is_used_when_nothing_is_said(networks: Any, parents: Any) -> None:
    folder, asked = parents["mamba2"].folder, TokenReduction(flops=0.9, method="stride")
    asked.save(folder)
    try:
        with secateur.reduce_tokens(networks["mamba2"]) as reducing:
            assert reducing.asked == asked
    finally:
        (folder / FILE).unlink()
    with pytest.raises(UsageError, match=FILE):
        secateur.reduce_tokens(networks["mamba2"])
    assert json.loads(json.dumps(asked.to_json()))["method"] == "stride"
