"""The layer-wise benchmark on a random Mamba-2: units run once, what a method refuses is a result, tables say both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.common.units import read
from benchmarks.layerwise import factorize, table
from benchmarks.layerwise.run import main
from transformers import Mamba2Config, Mamba2ForCausalLM

from tests.data.tokenizers_ import byte_tokenizer

SIZES = {
    "vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "num_heads": 4, "head_dim": 8,
    "n_groups": 2, "expand": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def test_a_refusal_is_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    Mamba2ForCausalLM(Mamba2Config(**SIZES)).save_pretrained(tmp_path / "parent")
    byte_tokenizer(adds_bos=True).save_pretrained(tmp_path / "parent")
    text = tmp_path / "text.txt"
    text.write_text("the cat sat\n\n" * 200)
    places = f"--name tiny --parent {tmp_path / 'parent'} --text {text} --held-out {text} --work {tmp_path}"
    command = f"factorize {places} --results {tmp_path} --samples 8 --length 16 --limit 300 --seeds 0 --only level=80%"
    main(command.split())
    found = {line["settings"]["method"]: line["result"] for line in read(tmp_path / factorize.FILE)}
    assert set(found) == set(factorize.ROWS)
    assert "refused" in found["modegpt"] and found["svd-llm"]["loss"] > 0
    capsys.readouterr()
    main(command.split())
    assert "0 units run" in capsys.readouterr().out
    shown = table.sections("factorize", tmp_path)
    assert "| modegpt | refused | - | - | - |" in shown and f"{found['svd']['loss']:.3f} (n=1)" in shown
