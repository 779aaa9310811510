"""The depth benchmark on a random model of a few thousand parameters: units run once, resume, and become tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.common.units import read
from benchmarks.depth import blocks, grain, table
from benchmarks.depth.ground import count
from benchmarks.depth.run import main
from transformers import NemotronHConfig, NemotronHForCausalLM

from tests.benchmarks.test_halving import TINY
from tests.data.tokenizers_ import byte_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent of five layers, and text."""
    folder = tmp_path_factory.mktemp("depth")
    torch.manual_seed(0)
    kinds = ["linear_attention", "mlp", "full_attention", "linear_attention", "mlp"]
    NemotronHForCausalLM(NemotronHConfig(**{**TINY, "layers_block_type": kinds})).save_pretrained(folder / "parent")
    byte_tokenizer(adds_bos=True).save_pretrained(folder / "parent")
    rng = np.random.default_rng(0)
    for name in ("train/a.txt", "eval/heldout.txt"):
        file = folder / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n\n".join(" ".join(rng.choice(["the", "cat", "sat"], 40)) for _ in range(40)))
    return folder


def test_units_run_once_and_become_tables(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = f"--parent tiny={folder / 'parent'} --data {folder / 'data'} --work {folder / 'work'} --results {tmp_path}"
    command = f"blocks grain {places} --seeds 0 --samples 4 --rows 2 --length 16".split()
    main(command)
    lines = read(tmp_path / blocks.FILE)
    assert {line["settings"]["method"] for line in lines} == set(blocks.METHODS)
    for share in (12.5, 25.0, 37.5):
        found = {line["settings"]["method"]: line["result"] for line in lines if line["settings"]["share"] == share}
        assert all(len(r["removed"]) == count(share, 5) for r in found.values())
        assert all(found["exhaustive"]["kl"] <= r["kl"] + 1e-9 for r in found.values())
        assert found["EvoPress"]["kl"] == pytest.approx(found["exhaustive"]["kl"], abs=1e-9)
    paths = {line["settings"]["grain"]: line["result"]["path"] for line in read(tmp_path / grain.FILE)}
    assert len(paths["scan"]) == 2 and len(paths["mamba"]) == 1
    capsys.readouterr()
    main(command)
    assert capsys.readouterr().out.count(" 0 units run") == 2
    text = table.sections(tmp_path)
    assert "**tiny**, 5 blocks" in text and "| EvoPress |" in text and "| 2 of 2 | - | - |" in text


def test_a_parent_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["blocks", "--parent", "x=nowhere", "--work", str(tmp_path), "--results", str(tmp_path)])
    assert "NAME=CHECKPOINT" in capsys.readouterr().err
