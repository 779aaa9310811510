"""The training script of the parents, on a model of a few thousand parameters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.parents import data
from benchmarks.parents.configs import MAMBA, MLP, PARENTS, parent_config
from benchmarks.parents.schedule import plan, wall_clock
from benchmarks.parents.train import main
from transformers import AutoModelForCausalLM, AutoTokenizer

from secateur.errors import UsageError

ROOT = Path(__file__).parents[2]
TINY = {
    "hidden_size": 32,
    "layers_block_type": [MAMBA, MLP],
    "mamba_num_heads": 8,
    "mamba_head_dim": 4,
    "ssm_state_size": 8,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "head_dim": 16,
}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences over a few words: something to learn within 60 steps."""
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "café", "while", "it", "rained", "in", "Paris"]
    for name, sentences in (("train/a.txt", 900), ("train/b.txt", 900), ("eval/held-heldout.txt", 200)):
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        lines = [" ".join(rng.choice(words, 8)) + "." for _ in range(sentences)]
        file.write_text("\n\n".join(lines[: sentences // 2]) + "\n\n\n" + "\n\n".join(lines[sentences // 2 :]))
    return folder


def arguments(text: Path, work: Path, *more: str) -> list[str]:
    base = f"hybrid --data {text} --work {work} --vocabulary 300 --length 32 --batch 2 --warmup 5 --save-every 0"
    return [*base.split(), "--config", json.dumps(TINY), *more]


def losses(work: Path) -> dict[int, float]:
    """Loss of each step; a step repeated after a kill counts as last seen."""
    lines = (work / "hybrid" / "log.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines if line.endswith("}")]
    return {entry["step"]: entry["loss"] for entry in entries}


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "benchmarks.parents.train", *arguments], env=environment, cwd=ROOT)


def kill_at(process: subprocess.Popen[bytes], work: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (work / "hybrid" / "log.jsonl").exists() and max(losses(work), default=0) >= step:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_killed_run_continues_with_the_same_losses(text: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    steps = 24
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    tokens = ("--tokens", str(steps * 64))
    process = start(arguments(text, broken, *tokens))
    main(arguments(text, whole, *tokens))
    kill_at(process, broken, 5)
    at_kill = max(losses(broken))
    assert at_kill < steps, "the run ended before it could be killed"
    main(arguments(text, broken, *tokens))
    assert losses(broken) == losses(whole)
    assert len(losses(whole)) == steps
    ends = [torch.load(work / "hybrid" / "checkpoint.pt")["model"] for work in (whole, broken)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_result_is_a_checkpoint_with_a_true_card(text: Path, tmp_path: Path) -> None:
    main(arguments(text, tmp_path, "--tokens", "3200"))
    final = tmp_path / "hybrid" / "final"
    model = AutoModelForCausalLM.from_pretrained(final)
    tokenizer = AutoTokenizer.from_pretrained(final)
    assert model.dtype == torch.bfloat16 and model.config.bos_token_id == tokenizer.bos_token_id == 0
    curve = losses(tmp_path)
    assert curve[50] < curve[1] - 0.5
    bits = json.loads((tmp_path / "hybrid" / "result.json").read_text())["bits_per_byte"]
    assert f"{bits:.4f} bits per byte" in (final / "README.md").read_text()
    assert bits == pytest.approx(plain_bits(model, tokenizer, text / "eval" / "held-heldout.txt"), rel=2e-2)


@torch.no_grad()
def plain_bits(model: Any, tokenizer: Any, file: Path) -> float:
    """Bits per byte written out: rows of 32 tokens behind a BOS, the model as transformers runs it."""
    ids = []
    for document in file.read_text().split("\n\n\n"):
        ids += tokenizer(document, add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
    nats, size = 0.0, 0
    for i in range(len(ids) // 32):
        row = ids[i * 32 : (i + 1) * 32]
        logits = model(torch.tensor([[tokenizer.bos_token_id] + row[:-1]]), use_cache=False).logits[0].float()
        nats -= logits.log_softmax(-1)[range(32), row].sum().item()
        text = [t for t in tokenizer.convert_ids_to_tokens(row) if t not in tokenizer.all_special_tokens]
        size += len("".join(text))  # a byte-level token has one character per byte
    return nats / np.log(2) / size


def test_decay_now_ends_an_unfinished_run(text: Path, tmp_path: Path) -> None:
    work = tmp_path / "hybrid"
    step = 8
    main(arguments(text, tmp_path, "--tokens", str(step * 64), "--decay-share", "0"))
    main(arguments(text, tmp_path, "--decay-now", "--tokens", str((step + 10) * 64)))
    log = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    rates = {entry["step"]: entry["rate"] for entry in log}
    tail = [rates[step + i] for i in range(1, 11)]
    assert tail == pytest.approx([3e-3 * (10 - i) / 10 for i in range(10)])
    assert torch.load(work / "stable.pt")["step"] == step + 1  # the first step of the decay still has the full rate
    assert (work / "final" / "model.safetensors").exists()


def test_other_settings_do_not_continue_a_run(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(arguments(text, tmp_path, "--tokens", "128"))
    with pytest.raises(SystemExit) as exit_:
        main(arguments(text, tmp_path, "--tokens", "256", "--rate", "0.1"))
    assert exit_.value.code == 2
    assert "rate = 0.003, now it is 0.1" in capsys.readouterr().err


def test_without_text_the_error_says_how_to_get_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["llama", "--work", str(tmp_path), "--data", str(tmp_path / "nothing")])
    assert exit_.value.code == 2
    assert "SECATEUR_DATA" in capsys.readouterr().err


def test_every_row_is_dealt_once_an_epoch_in_another_order() -> None:
    shuffled = data.Shuffled(7, seed=3)
    first, second = [shuffled.at(i) for i in range(7)], [shuffled.at(i) for i in range(7, 14)]
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second
    assert data.Shuffled(7, seed=3).at(9) == second[2]


def test_rows_predict_every_token_once() -> None:
    rows = data.Rows(np.arange(10, 21, dtype=np.uint16), length=5, bos=0)
    inputs, targets = rows.take([0, 1])
    assert targets.flatten().tolist() == list(range(10, 20))
    assert inputs.tolist() == [[0, 10, 11, 12, 13], [0, 15, 16, 17, 18]]


def test_schedule_under_a_clock() -> None:
    now = datetime(2026, 1, 1, 14, 0)
    schedule = plan(now.timestamp(), wall_clock("16:00", now), 0.25, clock=True)
    at = now.timestamp()
    assert schedule.factor(at, step=0, warmup=10) == pytest.approx(0.1)
    assert schedule.factor(at + 5400 - 1, step=99, warmup=10) == 1
    assert schedule.factor(at + 6300, step=99, warmup=10) == pytest.approx(0.5)
    assert not schedule.done(at + 7199) and schedule.done(at + 7200)
    assert wall_clock("13:59", now) > now.timestamp()
    with pytest.raises(UsageError):
        wall_clock("25:00", now)


@pytest.mark.parametrize("name", sorted(PARENTS))
def test_parents_have_3_to_8_million_parameters(name: str) -> None:
    config = parent_config(name, {"vocab_size": 4096}, {})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    count = sum(p.numel() for p in model.parameters())
    assert 3_000_000 <= count <= 8_000_000
    if name == "hybrid":
        assert 2 * count < 10_000_000 - 300_000  # what ships in bf16, with room for its tokenizer
        assert config.mamba_num_heads // config.n_groups >= 4 <= config.n_groups
