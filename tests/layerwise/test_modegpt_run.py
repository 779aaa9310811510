"""MoDeGPT on tiny checkpoints: smaller standard children that compute what the solved twin does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from secateur import api
from secateur.errors import UsageError
from secateur.layerwise.factorize.modegpt.run import kept_sizes, modegpt
from secateur.layerwise.run import Job
from secateur.model import open_model
from tests.cli.models import VOCAB, Pool


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return Pool(tmp_path_factory.mktemp("parents"))


def windows(samples: int = 12, length: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, VOCAB, (samples, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(folder: Path) -> torch.Tensor:
    return AutoModelForCausalLM.from_pretrained(folder)(windows(3, seed=1), use_cache=False).logits


@pytest.mark.parametrize("name", ["nemotron_h", "llama"])
def test_everything_kept_is_the_parent(name: str, pool: Pool, tmp_path: Path) -> None:
    with open_model(pool.get(name)) as model:
        modegpt(model, windows(40), tmp_path / "out", 1.0, Job(step=""))
    assert torch.allclose(logits(tmp_path / "out"), logits(pool.get(name)), atol=2e-3)


def test_a_hybrid_loses_head_channels_and_neurons(pool: Pool, tmp_path: Path) -> None:
    with open_model(pool.get("nemotron_h")) as model:
        assert kept_sizes(model, 0.5) == {"f": 20, "e": 4, "c": 4}
        child = modegpt(model, windows(40), tmp_path / "out", 0.5, Job(step=""))
        assert child.anatomy.count() < model.anatomy.count()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["intermediate_size"], config["head_dim"]) == (20, 4)
    record = json.loads((tmp_path / "out" / "secateur.json").read_text())
    lines = record["audit"]["linears"]
    assert {line["method"].split()[0] for line in lines} == {"nystrom", "joint", "CR"}
    assert all(0 <= line["predicted"] < 1 for line in lines)
    assert torch.isfinite(logits(tmp_path / "out")).all()


def test_the_sliced_child_equals_the_twin_with_zeros(pool: Pool, tmp_path: Path, monkeypatch) -> None:
    """What the walk propagated is what was written: the twin is saved from the walk's own tensors."""
    from safetensors.torch import load_file, save_file

    from secateur.layerwise.factorize.modegpt import run

    kept: dict[str, torch.Tensor] = {}
    write = run._write

    def spy(model, pairs, *rest):
        for path in pairs.work.glob("*.safetensors"):
            kept.update(load_file(path))
        write(model, pairs, *rest)

    monkeypatch.setattr(run, "_write", spy)
    with open_model(pool.get("nemotron_h")) as model:
        modegpt(model, windows(40), tmp_path / "out", 0.5, Job(step=""))
    twin = tmp_path / "twin"
    twin.mkdir()
    (twin / "config.json").write_text((pool.get("nemotron_h") / "config.json").read_text())
    save_file(
        load_file(pool.get("nemotron_h") / "model.safetensors") | kept, twin / "model.safetensors", {"format": "pt"}
    )
    assert len(kept) == 2 + 4  # two MLPs, one attention
    assert torch.allclose(logits(tmp_path / "out"), logits(twin), atol=1e-3)


def test_rotary_attention_stays_whole(pool: Pool, tmp_path: Path) -> None:
    with open_model(pool.get("llama")) as model:
        assert kept_sizes(model, 0.5) == {"f": 20}
        with modegpt(model, windows(), tmp_path / "out", 0.5, Job(step="")) as child:
            name = "model.layers.0.self_attn.v_proj.weight"
            assert torch.equal(child.read(name), model.read(name))


def test_compensated_neurons_beat_the_same_cut_without(pool: Pool, tmp_path: Path) -> None:
    """Against plain slicing of the same neurons, on text it was not fitted on."""
    parent = pool.get("llama")
    with open_model(parent) as model:
        modegpt(model, windows(200), tmp_path / "out", 0.7, Job(step=""))
    record = json.loads((tmp_path / "out" / "secateur.json").read_text())
    from secateur.pruning.cut import Cut
    from secateur.pruning.keep import KeepSets

    with open_model(parent) as model, open_model(tmp_path / "out") as child:
        cut = Cut(model.anatomy, KeepSets.from_json(model.anatomy, record["kept"]))
        net = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        state = net.state_dict()
        plain = {t.name: cut.apply(t, model.read(t.decl.name)) for t in cut.targets()}
        assert plain.keys() >= child.weights.tensors.keys()
        net.load_state_dict({k: plain.get(k, v) for k, v in state.items()})
    with torch.no_grad():
        want, bare = logits(parent), net(windows(3, seed=1), use_cache=False).logits
    assert float((logits(tmp_path / "out") - want).norm()) < float((bare - want).norm())


def test_what_it_cannot_do_is_said(pool: Pool, tmp_path: Path) -> None:
    with open_model(pool.get("mamba2")) as model, pytest.raises(UsageError, match="no pair"):
        modegpt(model, windows(), tmp_path / "out", 0.5, Job(step=""))
    with pytest.raises(UsageError, match="no --text"):
        api.factorize(pool.get("llama"), tmp_path / "out", method="modegpt")
