"""Writing is killed at random points; whatever happens, the destination is whole or absent and the parent untouched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_module(module: str, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("how", "mode"), [("calls", "new"), ("timed", "new"), ("calls", "overwrite"), ("calls", "no-exchange")]
)
def test_killed_at_20_random_points(tmp_path: Path, how: str, mode: str) -> None:
    output = run_module("tests.checkpoint.crash_driver", str(tmp_path), how, mode, "11")
    kills = [json.loads(line) for line in output.splitlines()]
    assert len(kills) == 20
    if how == "calls":
        assert all(kill["killed"] for kill in kills)
    assert any(kill["hidden"] for kill in kills), "no kill came while a staging folder existed"
    for kill in kills:
        assert kill["parent_untouched"], kill
        assert (kill["then"], kill["hidden_then"]) == ("new", []), kill
        if mode == "no-exchange" and kill["state"] == "absent":
            assert any("-old-" in name for name in kill["hidden"]), kill
        else:
            assert kill["state"] in ({"absent", "new"} if mode == "new" else {"old", "new"}), kill


def test_peak_memory_of_a_streamed_copy(tmp_path: Path) -> None:
    """400 MB pass through with less than half of that resident; holding them all would not."""
    lean = int(run_module("tests.checkpoint.memory_driver", str(tmp_path / "a"), "stream"))
    held = int(run_module("tests.checkpoint.memory_driver", str(tmp_path / "b"), "hold").split()[0])
    assert lean < 200_000_000 < 400_000_000 <= held
