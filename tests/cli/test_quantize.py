"""``secateur quantize`` and ``sc.quantize``: packed, dense, mixed; and what is wrong is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import secateur as sc
from secateur.evaluation.equality import load_strict
from secateur.export.compressed import refused
from tests.cli.command import secateur
from tests.cli.conftest import pool as pool
from tests.cli.models import Pool

pytest.importorskip("compressed_tensors", reason="the extra 'export' is not installed")


def size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.glob("*.safetensors"))


def test_packed_and_dense_hold_the_same_weights(pool: Pool, tmp_path: Path) -> None:
    parent = pool.get("nemotron_h", dtype=torch.float32)
    options = ["--method", "rtn", "--bits", "4", "--group", "0"]
    done = secateur("quantize", parent, *options, "--out", tmp_path / "packed")
    assert done.code == 0 and "packed:" in done.out, done.err
    assert secateur("quantize", parent, *options, "--store", "dense", "--out", tmp_path / "dense").code == 0
    with sc.open(tmp_path / "packed") as a, sc.open(tmp_path / "dense") as b:
        assert all(torch.equal(a.read(n), b.read(n)) for n in b.weights.tensors)
    assert size(tmp_path / "packed") < size(tmp_path / "dense")
    record = json.loads((tmp_path / "packed" / "secateur.json").read_text())
    lines = [x for x in record["audit"]["linears"] if x["action"] == "done"]
    assert record["step"] == "quantize" and {x["notes"]["bits"] for x in lines} == {4}
    assert set(record["storage"]["packed"]) | set(record["storage"]["dense"]) == {x["tensor"] for x in lines}
    assert all(record["storage"]["dense"].values())
    odd = [n for n in record["storage"]["packed"] if any(size % 32 for size in shapes(tmp_path / "dense")[n])]
    assert odd and sorted(record["storage"]["refused"]) == odd and "vLLM on a CPU has no kernel for" in done.out


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    with sc.open(folder) as model:
        return {n: t.shape for n, t in model.weights.tensors.items()}


def test_what_vllm_has_no_kernel_for() -> None:
    assert refused((64, 96), {"bits": 4}) == ""
    assert refused((64, 96), {"bits": 8}) == "8 bits, and it has 4"
    assert refused((40, 48), {"bits": 4}) == "40 outputs and 48 inputs: no multiple of 32"


def test_the_parts_of_a_packed_model_run(pool: Pool, tmp_path: Path) -> None:
    """eval calls base model and head by themselves: weights must not wait for a call of the whole."""
    parent, ids = pool.get("nemotron_h", dtype=torch.float32), torch.arange(12)[None]
    states = []
    for store in ("packed", "dense"):
        options = ["--method", "rtn", "--bits", "4", "--group", "0", "--store", store]
        assert secateur("quantize", parent, *options, "--out", tmp_path / store).code == 0
        states.append(load_strict(tmp_path / store).base_model(ids)[0])
    assert torch.equal(*states) and not torch.equal(states[0], load_strict(parent).base_model(ids)[0])


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--method", "gptq"], "no text is given"),
        (["--method", "gptqq"], "expected one of rtn"),
        (["--method", "rtn", "--bits", "3.5"], "needs --allocate"),
        (["--method", "rtn", "--bits", "9"], "expected 2 to 8"),
        (["--method", "onebit", "--bits", "2"], "has no such option"),
        (["--method", "rtn", "--search", "gram"], "no text is given"),
        (["--method", "rtn", "--asymmetric"], "packed zeros"),
        (["--method", "rtn", "--bits", "4", "--allocate", "dynamic"], "no --text"),
    ],
)
def test_what_is_wrong_is_said(argv: list[str], says: str, pool: Pool, tmp_path: Path) -> None:
    done = secateur("quantize", pool.get("llama"), *argv, "--out", tmp_path / "x")
    assert done.code == 2 and says in done.err + done.out and not (tmp_path / "x").exists(), done.err
