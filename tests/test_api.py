"""The Python interface of the README, called as a user calls it: more than once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import secateur as sc
from secateur.demo.hybrid import build


def test_open_plan_prune_twice(tmp_path: Path) -> None:
    """A second call works like the first: no module of the package hides a function."""
    parent = sc.open(build(tmp_path / "parent"))
    plan = sc.plan(parent, params="60%")
    child = sc.prune(parent, plan, out=tmp_path / "child", score="first")
    again = sc.prune(parent, {"ffn": 512}, out=tmp_path / "again", score="first")
    assert child.anatomy.count() == plan.after.parameters
    assert again.anatomy.sizes["f"] == 512


def test_importing_is_cheap() -> None:
    """No PyTorch before the first call that needs it."""
    code = "import sys, secateur; assert callable(secateur.prune); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
