"""Distillation over processes, student and teacher sharded: one that dies ends the run in time, and it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train import test_resume as runs
from tests.train import tiny

SCRIPT = str(Path(runs.__file__).with_name("fsdp_on_cpu.py"))


@pytest.mark.slow
@pytest.mark.long
def test_a_process_that_dies_ends_the_run_which_goes_on(tmp_path: Path) -> None:
    parent = tiny.parent(tmp_path / "parent", "nemotron_h")
    family = runs.Family(parent, tiny.child(tmp_path / "child", parent, ffn=24), tiny.text(tmp_path))
    arguments = runs.command(family, tmp_path / "out", "--save-every", "2", "--tokens", "1024")[2:]
    broken = runs.start([*runs.launch(), SCRIPT, "--die-after", "5", *arguments])
    told, _ = broken.communicate(timeout=400)  # not the half hour that a collective call waits by itself
    assert broken.returncode != 0 and "SIGKILL" in told, told
    assert not (tmp_path / "out").exists() and (tmp_path / "out.work" / "step-000000004").is_dir()
    resumed = runs.start([*runs.launch(), SCRIPT, *arguments])
    told, _ = resumed.communicate(timeout=400)
    assert resumed.returncode == 0 and "resuming after step 4" in told and "sharded: all" in told, told
    one = tiny.heal(family.child, family.parent, family.text, tmp_path / "one", warmup=None)
    for key in ("loss", "gradient_norm"):
        assert tiny.curve(tmp_path / "out", key) == pytest.approx(tiny.curve(one, key), rel=2e-4), key
