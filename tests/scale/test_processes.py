"""Several processes: the statistics of one, whatever each of them met; one that dies ends the run, which goes on."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
import torch

from secateur.calibration.stats import load_stats
from secateur.model import open_model
from tests.cli.models import build
from tests.evaluate.models import TEXT, hybrid, tokenizer

from .killed import Place, Trap

BOUND_S = 240  # far more than it takes: a process that waits for a dead one for ever is what fails


def meeting() -> dict[str, str]:
    """What torchrun tells its two processes, but their ranks."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}


def both(places: list[Place], argv: list[str], traps: list[Trap | None]) -> list[int | None]:
    """Exit codes of two processes on one command."""
    common = meeting()
    running = [
        place.start(argv, trap, **common, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank, (place, trap) in enumerate(zip(places, traps, strict=True))
    ]
    for process in running:
        process.join(BOUND_S)
        assert process.exitcode is not None, "a process waits for one that is gone"
    return [process.exitcode for process in running]


@pytest.fixture
def places(tmp_path: Path) -> list[Place]:
    found = [Place(tmp_path / f"rank{rank}") for rank in range(2)]
    for place in found:
        place.folder.mkdir()
    return found


def model(name: str, folder: Path) -> Path:
    if name == "nemotron_h":
        return hybrid(folder)
    build(name, folder, over={"vocab_size": 320, "num_local_experts": 8, "num_experts_per_tok": 1})
    tokenizer().save_pretrained(folder)
    return folder


def equal(one: Path, two: Path, parent: Path) -> None:
    with open_model(parent) as opened:
        a, b = load_stats(one, opened), load_stats(two, opened)
    assert a.tensors.keys() == b.tensors.keys() and a.tokens == b.tokens
    for key, value in a.tensors.items():
        assert torch.allclose(value, b.tensors[key], rtol=1e-6, atol=1e-9), key


@pytest.mark.parametrize("name", ["nemotron_h", "mixtral"])
def test_uneven_text_counts_like_in_one_process(name: str, places: list[Place], tmp_path: Path) -> None:
    """7 windows in batches of 2: one process gets 4 of them, the other 3; with 8 experts some are met by one only."""
    parent, text = model(name, tmp_path / "parent"), tmp_path / "text.txt"
    text.write_text(TEXT)
    argv = ["calibrate", str(parent), "--text", str(text), "--samples", "7", "--length", "8", "--batch", "2", "--out"]
    places[0].done([*argv, str(tmp_path / "one")])
    assert both(places, [*argv, str(tmp_path / "two")], [None, None]) == [0, 0], places[0].log + places[1].log
    equal(tmp_path / "one", tmp_path / "two", parent)


def test_a_process_that_dies_ends_the_run_which_goes_on(places: list[Place], tmp_path: Path) -> None:
    parent, text = model("nemotron_h", tmp_path / "parent"), tmp_path / "text.txt"
    text.write_text(TEXT)
    argv = ["calibrate", str(parent), "--text", str(text), "--samples", "6", "--length", "16", "--batch", "2"]
    places[0].done([*argv, "--out", str(tmp_path / "one")])
    argv += ["--journal", str(tmp_path / "journal"), "--out", str(tmp_path / "two")]
    layer = Trap("secateur.calibration.walker", "_one_layer", 3)
    assert both(places, argv, [None, layer]) == [2, -signal.SIGKILL], places[0].log
    assert "another process of this run has ended" in " ".join(places[0].log.split())
    assert "Traceback" not in places[0].log and not (tmp_path / "two").exists()
    counting = [Trap("secateur.calibration.walker", "_one_layer")] * 2
    assert both(places, argv, list(counting)) == [0, 0], places[0].log + places[1].log
    assert places[0].calls == places[1].calls <= 5 - 2, "the second run began anew, or at different layers"
    equal(tmp_path / "one", tmp_path / "two", parent)


def test_with_as_many_batches_as_processes_at_least(places: list[Place], tmp_path: Path) -> None:
    parent, text = model("nemotron_h", tmp_path / "parent"), tmp_path / "text.txt"
    text.write_text(TEXT)
    argv = ["calibrate", str(parent), "--text", str(text), "--samples", "2", "--length", "8", "--batch", "2"]
    assert both(places, [*argv, "--out", str(tmp_path / "out")], [None, None]) == [2, 2]
    assert "do not go round 2 processes" in " ".join(places[0].log.split())
