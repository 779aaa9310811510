"""factorize and residuals through the engine: what lands on disk loads, and holds what was said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from secateur import api
from secateur.errors import UsageError
from secateur.export.adapter import FOLDER, WEIGHTS
from secateur.export.packed import expand, read_manifest
from secateur.layerwise.factorize.ranks import Spectrum, shared_out
from secateur.layerwise.factorize.run import factorize
from secateur.layerwise.run import Job, compress
from secateur.layerwise.sparsify import SPARSIFY
from secateur.model import Model, open_model
from tests.cli.models import VOCAB, Pool

FAMILIES = ["llama", "nemotron_h", "mixtral", "gpt2"]


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return Pool(tmp_path_factory.mktemp("parents"))


def windows(samples: int = 12, length: int = 16) -> torch.Tensor:
    return torch.randint(3, VOCAB, (samples, length), generator=torch.Generator().manual_seed(0))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_factors_expand_to_the_dense_result(name: str, pool: Pool, tmp_path: Path) -> None:
    with open_model(pool.get(name)) as model:
        factorize(model, windows(), tmp_path / "dense", "svd-llm", Job(step=""), ratio=0.5)
        factorize(model, windows(), tmp_path / "small", "svd-llm", Job(step=""), ratio=0.5, store="factors")
    expand(tmp_path / "small", tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (
        tmp_path / "dense" / "model.safetensors"
    ).read_bytes()
    small = (tmp_path / "small" / "packed" / "model.safetensors").stat().st_size
    assert small < 0.85 * (tmp_path / "dense" / "model.safetensors").stat().st_size
    AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    old, new = tensors(pool.get(name)), tensors(tmp_path / "back")
    for tensor, entry in read_manifest(tmp_path / "small").items():
        m, d = entry.shape[-2:]
        rank = int(torch.linalg.matrix_rank(new[tensor].double(), rtol=1e-5).max())
        assert rank <= m * d // 2 // (m + d) and not torch.equal(old[tensor], new[tensor]), tensor


def test_every_linear_is_in_the_audit_and_small_ones_are_left_for_a_reason(pool: Pool, tmp_path: Path) -> None:
    api.factorize(pool.get("nemotron_h"), tmp_path / "out", method="svd", rank=10)
    audit = json.loads((tmp_path / "out" / "secateur.json").read_text())["audit"]
    done = {n for n, t in audit["tensors"].items() if t["action"] == "factorized"}
    assert done and audit["tensors"].keys() == tensors(pool.get("nemotron_h")).keys()
    left = [line for line in audit["linears"] if line["action"] == "left"]
    assert any("saves nothing" in line["why"] for line in left)


def test_ranks_from_spectra_lose_less_by_their_own_measure_within_the_budget(pool: Pool, tmp_path: Path) -> None:
    with open_model(pool.get("nemotron_h")) as model:
        factorize(model, windows(), tmp_path / "out", "svd-llm", Job(step=""), ratio=0.5, allocate="greedy")
        record = json.loads((tmp_path / "out" / "secateur.json").read_text())
        whole = [line for line in record["audit"]["linears"] if "spent elsewhere" in line["why"]]
        ranks = {line["notes"]["rank"] for line in record["audit"]["linears"] if line["action"] == "done"}
    assert len(ranks) > 1 or whole


def test_shared_out_beats_uniform_ranks() -> None:
    """One linear whose energy lies in one direction, one with a flat spectrum."""
    sharp = Spectrum(40, 40, 1, torch.tensor([100.0] + [0.01] * 39))
    flat = Spectrum(40, 40, 1, torch.ones(40))
    got = shared_out({"sharp": sharp, "flat": flat}, 0.5, "dynamic")
    assert got["sharp"] is not None and got["sharp"] <= 5
    assert got["flat"] is not None and got["flat"] > 10
    assert sum((40 + 40) * r for r in got.values() if r) <= 0.5 * 2 * 1600
    with pytest.raises(UsageError, match="uniform"):
        shared_out({"flat": flat}, 0.5, "magic")


def test_allocation_needs_text_and_a_ratio(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no --text"):
        api.factorize(pool.get("llama"), tmp_path / "out", method="svd", allocate="greedy")


def sparsified(model: Model, out: Path, rank: int) -> None:
    method = SPARSIFY["magnitude"]
    compress(model, windows(), out, method, method.configure(pattern="2:4"), Job(step="sparsify", residual=rank))


@pytest.mark.parametrize("name", ["llama", "nemotron_h"])
def test_a_residual_of_full_rank_restores_the_model(name: str, pool: Pool, tmp_path: Path) -> None:
    """What is stored is sparse; with the adapter multiplied in by hand it is the parent."""
    with open_model(pool.get(name)) as model:
        sparsified(model, tmp_path / "out", 64)
    parent, base = tensors(pool.get(name)), tensors(tmp_path / "out")
    adapter = load_file(tmp_path / "out" / FOLDER / WEIGHTS)
    seen = 0
    for key, a in adapter.items():
        if not key.endswith("lora_A.weight"):
            continue
        end = ".".join(key.removeprefix("base_model.model.").removesuffix(".lora_A.weight").split(".")[1:])
        tensor = next(n for n in parent if n.removesuffix(".weight").endswith(end))
        b = adapter[key.replace("lora_A", "lora_B")]
        assert a.shape[0] == b.shape[1] == 64
        assert float((base[tensor] == 0).float().mean()) == pytest.approx(0.5, abs=0.02), tensor
        assert torch.allclose(base[tensor] + b @ a, parent[tensor], atol=1e-4), tensor
        seen += 1
    assert seen >= 8


def test_peft_loads_the_adapter(pool: Pool, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    ids = windows(2)
    with open_model(pool.get("llama")) as model:
        sparsified(model, tmp_path / "out", 64)
    load = AutoModelForCausalLM.from_pretrained
    with torch.no_grad():
        want = load(pool.get("llama"))(ids).logits
        bare = load(tmp_path / "out")(ids).logits
        got = peft.PeftModel.from_pretrained(load(tmp_path / "out"), tmp_path / "out" / FOLDER)(ids).logits
    assert float((bare - want).abs().max()) > 0.1
    assert torch.allclose(got, want, atol=1e-3)


def test_a_small_residual_lowers_every_layers_error(pool: Pool, tmp_path: Path) -> None:
    with open_model(pool.get("llama")) as model:
        for rank in (0, 2):
            sparsified(model, tmp_path / str(rank), rank)
    first = [json.loads((tmp_path / str(r) / "secateur.json").read_text())["audit"]["linears"][:4] for r in (0, 2)]
    # later layers read other inputs; the first attention's four see the same
    for plain, helped in list(zip(*first, strict=True))[:3]:
        assert helped["predicted"] < plain["predicted"]


def test_a_residual_needs_text(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no text"):
        api.sparsify(pool.get("llama"), tmp_path / "out", method="magnitude", residual=4)
