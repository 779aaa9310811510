"""Every family quantised and packed: plain transformers loads it, and computes what the dense twin computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from secateur.errors import UsageError
from secateur.export.compressed import CompressedTensors
from secateur.layerwise.quantize import QUANTIZE
from secateur.layerwise.run import Job, compress
from secateur.model import open_model

from .harness import ids, randomize
from .rows import ROWS, VOCAB

pytest.importorskip("compressed_tensors", reason="the extra 'export' is not installed")

#: What no loader takes packed, by the end of the tensor's name; measured here: packing these makes the load fail.
DENSE = {
    "mamba": {"dt_proj.weight", "out_proj.weight"},
    "falcon_mamba": {"dt_proj.weight", "out_proj.weight"},
    "mamba2": {"out_proj.weight"},
    "granitemoehybrid": {"block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight"},
    "gpt_oss": {"gate_up_proj", "experts.down_proj"},
}
ALL_DENSE = {"gpt2", "olmo_hybrid", "kimi_linear", "recurrent_gemma"}
SHARED = {"zamba2": "shared_transformer"}


def load(folder: Path) -> Any:
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, experts_implementation="eager"
    )
    assert not {k: v for k, v in info.items() if v}
    return model.eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Row -> its tiny model in float32."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            row = ROWS[name]
            torch.manual_seed(0)
            fields = {"vocab_size": VOCAB, **row.config}
            config = AutoConfig.for_model(row.model_type or name.partition("@")[0], **fields)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            made[name] = tmp_path_factory.mktemp("row") / "parent"
            randomize(model, seed=7).save_pretrained(made[name])
        return made[name]

    return get


@pytest.mark.parametrize("name", ROWS)
def test_what_is_packed_loads_to_the_last_bit(name: str, folders: Any, tmp_path: Path) -> None:
    parent = open_model(folders(name))
    method = QUANTIZE["rtn"]
    settings = method.configure(bits=4, group=0, search="minmax")
    storage = CompressedTensors(parent)
    small = compress(parent, None, tmp_path / "packed", method, settings, Job(step="quantize", storage=storage))
    dense = compress(parent, None, tmp_path / "dense", method, settings, Job(step="quantize"))
    for tensor in dense.weights.tensors:
        assert torch.equal(small.read(tensor), dense.read(tensor)), tensor
    said = json.loads((tmp_path / "packed" / "secateur.json").read_text())["storage"]
    family = name.partition("@")[0]
    if family in ALL_DENSE:
        assert not said["packed"] and all(said["dense"].values())
    else:
        stay = DENSE.get(family, set())
        wrong = [n for n in said["dense"] if not n.endswith(tuple(stay)) and SHARED.get(family, "?") not in n]
        assert said["packed"] and not wrong and all(said["dense"].values())
        assert sum(f.stat().st_size for f in (tmp_path / "packed").glob("*.safetensors")) < sum(
            f.stat().st_size for f in (tmp_path / "dense").glob("*.safetensors")
        )
    with torch.no_grad():
        want, got = (load(tmp_path / d)(ids()).logits for d in ("dense", "packed"))
    assert torch.equal(want, got)


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_every_width_loads(bits: int, folders: Any, tmp_path: Path) -> None:
    """Widths that do not divide a word, in groups."""
    parent = open_model(folders("llama"))
    method = QUANTIZE["rtn"]
    settings = method.configure(bits=bits, group=4)
    job = Job(step="quantize", storage=CompressedTensors(parent))
    compress(parent, None, tmp_path / "packed", method, settings, job)
    compress(parent, None, tmp_path / "dense", method, settings, Job(step="quantize"))
    with torch.no_grad():
        want, got = (load(tmp_path / d)(ids()).logits for d in ("dense", "packed"))
    assert torch.equal(want, got)


def test_mixed_widths_load(folders: Any, tmp_path: Path) -> None:
    """Linears of one model with different bits, experts among them."""
    parent = open_model(folders("jamba"))
    method = QUANTIZE["rtn"]

    def choose(place: Any) -> Any:
        return method, method.configure(bits=3 if "experts" in place.name else 4 + 4 * (place.decl.layer % 2), group=0)

    for name, storage in (("packed", CompressedTensors(parent)), ("dense", None)):
        job = Job(step="quantize", storage=storage)
        compress(parent, None, tmp_path / name, method, method.configure(), job, choose=choose)
    with torch.no_grad():
        want, got = (load(tmp_path / d)(ids()).logits for d in ("dense", "packed"))
    assert torch.equal(want, got)
    groups = json.loads((tmp_path / "packed" / "config.json").read_text())["quantization_config"]["config_groups"]
    assert sorted(g["weights"]["num_bits"] for g in groups.values()) == [3, 4, 8]


def test_asymmetric_grids_are_refused(folders: Any) -> None:
    with pytest.raises(UsageError, match="packed zeros"):
        CompressedTensors(open_model(folders("llama")), symmetric=False)
