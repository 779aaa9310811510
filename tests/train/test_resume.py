"""Kill -9, a full disk and two processes, each in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from secateur.checkpoint import TensorStore
from secateur.train import HeldOut
from tests.checkpoint.tiny import same

from . import tiny
from .conftest import Family

ARGS = ["--tokens", "1536", "--length", "32", "--batch", "4", "--micro-batch", "2", "--lr", "3e-3", "--chunk", "24"]


def command(family: Family, out: Path, *more: str) -> list[str]:
    return [
        "-m", "secateur", "distill", str(family.child), "--teacher", str(family.parent), "--text", str(family.text),
        "--out", str(out), *ARGS, *more,
    ]  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}


def launch() -> list[str]:
    """torchrun with two processes on a free port."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    return ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 0, told
    return told


def test_kill_9_and_resume_give_the_exact_curve(hybrid: Family, tmp_path: Path) -> None:
    more = ("--save-every", "3", "--eval-text", str(hybrid.text), "--eval-every", "2")
    whole = start(command(hybrid, tmp_path / "whole", *more))
    victim = start(command(hybrid, tmp_path / "killed", *more))
    metrics = tmp_path / "killed.work" / "metrics.jsonl"
    while victim.poll() is None and (not metrics.exists() or metrics.read_text().count("\n") < 5):
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL and not (tmp_path / "killed").exists()
    told = finish(start(command(hybrid, tmp_path / "killed", *more)))
    finish(whole)
    assert "resuming after step" in told
    for key in ("step", "loss", "ce", "gradient_norm", "lr", "held_out", "held_out_divergence"):
        assert tiny.curve(tmp_path / "killed", key) == tiny.curve(tmp_path / "whole", key)
    a, b = (TensorStore.open(tmp_path / name) for name in ("whole", "killed"))
    assert all(same(a.read(n), b.read(n)) for n in a.tensors)


def test_two_processes_give_the_curve_of_one(llama: Family, tmp_path: Path) -> None:
    told_alike = dict(tokens=1536, warmup=None, hidden="mse", held_out=HeldOut(texts=(llama.text,), every=10))
    one = tiny.heal(llama.child, llama.parent, llama.text, tmp_path / "one", **told_alike)
    more = ("--hidden", "mse", "--eval-text", str(llama.text), "--eval-every", "10")
    told = finish(start([*launch(), *command(llama, tmp_path / "two", *more)]))
    assert told.count("wrote ") == 1
    for key in ("loss", "divergence", "ce", "hidden", "held_out", "held_out_divergence"):
        assert tiny.curve(tmp_path / "two", key) == pytest.approx(tiny.curve(one, key), rel=2e-5), key
    assert tiny.curve(one)[-1] < 0.9 * tiny.curve(one)[0]
    assert json.loads((tmp_path / "two" / "secateur.json").read_text())["processes"] == 2


@pytest.mark.long
@pytest.mark.parametrize("name", ["llama", "hybrid"])
def test_fsdp_gives_the_curve_of_one_and_resumes(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    family: Family = request.getfixturevalue(name)
    one = tiny.heal(family.child, family.parent, family.text, tmp_path / "one", warmup=None)
    arguments = command(family, tmp_path / "out", "--save-every", "3", "--tokens", "1024")[2:]
    script = str(Path(__file__).with_name("fsdp_on_cpu.py"))
    broken = start([*launch(), script, "--stop-after", "5", *arguments])
    told, _ = broken.communicate(timeout=120)
    assert broken.returncode != 0 and "stopped" in told, told
    told = finish(start([*launch(), script, *arguments]))
    assert "sharded: all" in told and "resuming after step 3" in told
    for key in ("loss", "gradient_norm"):
        assert tiny.curve(tmp_path / "out", key) == pytest.approx(tiny.curve(one, key), rel=2e-4), key
    a, b = (TensorStore.open(tmp_path / name) for name in ("one", "out"))
    assert all(torch.allclose(a.read(n), b.read(n), atol=1e-5, rtol=1e-2) for n in a.tensors)


def test_batch_that_does_not_divide(llama: Family, tmp_path: Path) -> None:
    from secateur.errors import UsageError
    from secateur.train.loop import share
    from secateur.train.settings import Settings

    settings = Settings(tokens=10**5, batch=6)
    assert [list(share(settings, 3, i)) for i in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(UsageError, match="batch 6 does not divide among 4"):
        share(settings, 4, 0)


def test_full_disk_ends_with_the_last_good_state(llama: Family, tmp_path: Path) -> None:
    # a limit on file sizes stands in for a full disk: the same error path, and no mount is needed
    limited = (
        "import resource, sys; from secateur.train import state; from secateur.cli import run; save = state.save\n"
        "def limit(*a):\n"
        "    if a[-1] > 3: resource.setrlimit(resource.RLIMIT_FSIZE, (4096 * 8, resource.RLIM_INFINITY))\n"
        "    save(*a)\n"
        "state.save = limit; sys.exit(run(sys.argv[1:]))"
    )
    process = start(["-c", limited, *command(llama, tmp_path / "out", "--save-every", "3")[2:]])
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 2, told
    assert "error:" in told and "Traceback" not in told
    assert not (tmp_path / "out").exists()
    assert [p.name for p in (tmp_path / "out.work").glob("step*")] == ["step-000000003"]
