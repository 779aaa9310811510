"""Every verb, used as a new user would: through its options, its output and the files it leaves."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from secateur.anatomy.anatomy import Anatomy
from secateur.pruning.cut import Cut
from secateur.pruning.keep import KeepSets

from .command import done, refused, secateur, tree
from .models import CORPUS, SPECIAL, Pool, build

FAMILIES = ["nemotron_h", "mixtral", "llama", "mamba2", "gpt2"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, read with the safetensors library alone."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        held = load_file(file)
        assert not found.keys() & held.keys()
        found |= held
    return found


def sizes(folder: Path) -> tuple[int, int]:
    """(parameters, bytes) of the tensors in a folder's files."""
    held = weights(folder).values()
    return sum(t.numel() for t in held), sum(t.numel() * t.itemsize for t in held)


def strictly(folder: Path) -> Any:
    """The model in plain transformers; any missing, unexpected or mismatched key fails."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


# ---- inspect ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_inspect(family: str, pool: Pool) -> None:
    folder = pool.get(family)
    told = done("inspect", folder, "--json").json
    assert (told["parameters"], told["bytes"]) == sizes(folder)
    assert sum(part["parameters"] for part in told["parts"].values()) == told["parameters"]
    assert (told["model_type"], told["weights"], told["source"]) == (family, True, str(folder))
    text = done("inspect", folder).out
    assert family in text and str(folder) in text
    assert all(axis["name"] in text for axis in told["axes"])


def test_inspect_without_weights(pool: Pool, tmp_path: Path) -> None:
    """A lone config.json says everything but the source and whether there are weights."""
    folder = pool.get("nemotron_h")
    shutil.copy(folder / "config.json", tmp_path)
    whole = done("inspect", folder, "--json").json
    for source in (tmp_path, tmp_path / "config.json"):
        told = done("inspect", source, "--json").json
        assert told.pop("weights") is False
        assert {**told, "source": 0, "weights": True} == {**whole, "source": 0}


def test_every_size_inspect_offers_can_be_planned(pool: Pool, tmp_path: Path) -> None:
    for family in FAMILIES:
        path = pool.get(family) / "config.json"
        for axis in done("inspect", path, "--json").json["axes"]:
            for size in {*axis["sizes"][:2], *axis["sizes"][-2:]}:
                plan = done("plan", path, "--keep", f"{axis['name']}={size}", "--json").json
                assert plan["keep"][axis["name"]] == size
            if not axis["prunable"] and axis["size"] > 1:
                assert axis["why_not"]
                refused("plan", path, "--keep", f"{axis['name']}={axis['size'] - 1}")


# ---- plan -------------------------------------------------------------------------------------------------------


def test_plan_within_a_budget(pool: Pool) -> None:
    folder = pool.get("nemotron_h")
    parameters, nbytes = sizes(folder)
    for option, limit, key in [
        ("--params=60%", 0.6 * parameters, "parameters"),
        ("--params=12k", 12_000, "parameters"),
        ("--params=0.012M", 12_000, "parameters"),
        ("--bytes=60%", 0.6 * nbytes, "bytes"),
        ("--bytes=50KB", 50_000, "bytes"),
        ("--bytes=50KiB", 51_200, "bytes"),
    ]:
        plan = done("plan", folder, option, "--json").json
        assert 0.85 * limit <= plan["after"][key] <= limit
    assert done("plan", folder, "--params", "100%", "--json").json["keep"] == {}


def test_plan_from_a_config_alone_is_the_same(pool: Pool, tmp_path: Path) -> None:
    folder = pool.get("mamba2")
    options = ["--params", "70%", "--keep", "ssm_state=8", "--json"]
    assert done("plan", folder / "config.json", *options).json == done("plan", folder, *options).json


def test_plan_keeps_what_is_given_and_drops_layers(pool: Pool) -> None:
    folder = pool.get("nemotron_h")
    plan = done("plan", folder, "--keep", "hidden=20", "--params", "60%", "--drop-layers", "0-1", "--json").json
    assert plan["keep"]["hidden"] == 20
    assert plan["layers"] == [2, 3, 4]


def test_plan_file(pool: Pool, tmp_path: Path) -> None:
    """``plan --out`` then ``prune --plan`` equals ``prune`` with the same options."""
    folder, plan = pool.get("nemotron_h"), tmp_path / "plan.json"
    text = done("plan", folder, "--keep", "hidden=16,ssm_heads=6", "--drop-layers", "4", "--out", plan).out
    assert str(plan) in " ".join(text.split())
    done("prune", folder, "--plan", plan, "--out", tmp_path / "a")
    done("prune", folder, "--keep", "hidden=16,ssm_heads=6", "--drop-layers", "4", "--out", tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    for change in (["--params", "60%"], ["--keep", "ffn=8"], ["--drop-layers", "1"]):
        refused(
            "prune", folder, "--plan", plan, *change, "--out", tmp_path / "c", says="--plan already holds the shape"
        )
    other = pool.get("llama")
    refused("prune", other, "--plan", plan, "--out", tmp_path / "c", says="was made for another config (nemotron_h)")
    assert not (tmp_path / "c").exists()


def test_a_budget_that_cannot_be_met_says_what_is_closest(pool: Pool) -> None:
    for family in FAMILIES:
        folder = pool.get(family)
        message = refused("plan", folder, "--params", "500", says="no shape fits the budget; the closest takes")
        shape = message.split("of it: ")[1].split(" hint:")[0].replace(" ", "")
        closest = done("plan", folder, "--keep", shape, "--json").json["after"]["parameters"]
        assert f"takes {closest / 500:.1%} of it" in message


@pytest.fixture(scope="module")
def budgets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("budgets")


@settings(max_examples=30, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    family=st.sampled_from(FAMILIES),
    share=st.floats(12, 100),
    kind=st.sampled_from(["params", "bytes"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_budgets_hold(pool: Pool, budgets: Path, family: str, share: float, kind: str, dtype: torch.dtype) -> None:
    """Planned parameters and bytes are those of the files, exactly, and never exceed the budget."""
    folder, child = pool.get(family, dtype=dtype), budgets / "child"
    before = sizes(folder)
    shutil.rmtree(child, ignore_errors=True)
    options = [f"--{kind}", f"{share:.3f}%"]
    planned = secateur("plan", folder, *options, "--json")
    pruned = secateur("prune", folder, *options, "--out", child, "--score", "first")
    assert planned.code == pruned.code
    if planned.code:
        assert "no shape fits the budget; the closest takes" in " ".join(planned.err.split())
        assert not child.exists()
        return
    after = planned.json["after"]
    assert (after["parameters"], after["bytes"]) == sizes(child)
    spent, whole = (after["parameters"], before[0]) if kind == "params" else (after["bytes"], before[1])
    assert spent <= whole * float(f"{share:.3f}") / 100
    assert planned.json["before"]["parameters"] == before[0]


# ---- prune ------------------------------------------------------------------------------------------------------

CUTS = {
    "nemotron_h": "hidden=16,ffn=20,ssm_heads=6,ssm_state=8,kv_heads=1",
    "mixtral": "hidden=16,expert_ffn=12,kv_heads=1",
    "llama": "hidden=16,ffn=20,q_per_kv=1",
    "mamba2": "hidden=12,ssm_state=8",
    "gpt2": "ffn=20",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_prune_then_verify(family: str, pool: Pool, tmp_path: Path) -> None:
    folder, child = pool.get(family), tmp_path / "child"
    before = tree(folder)
    text = " ".join(done("prune", folder, "--keep", CUTS[family], "--out", child).out.split())
    assert f"wrote {child}" in text and str(child / "secateur.json") in text
    assert tree(folder) == before
    assert sum(p.numel() for p in strictly(child).parameters()) == sizes(child)[0]
    told = done("inspect", child, "--json").json
    assert (told["parameters"], told["bytes"]) == sizes(child)
    wanted = dict(item.split("=") for item in CUTS[family].split(","))
    assert {a["name"]: str(a["size"]) for a in told["axes"]}.items() >= wanted.items()
    result = done("verify", folder, child, "--json").json
    assert result["holds"] is True and result["uncut"] > 0.01


@pytest.mark.parametrize("score", ["magnitude", "random", "first"])
def test_equal_seeds_make_equal_bytes(score: str, pool: Pool, tmp_path: Path) -> None:
    folder = pool.get("nemotron_h")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        done("prune", folder, "--keep", CUTS["nemotron_h"], "--score", score, "--seed", seed, "--out", tmp_path / name)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    same_weights = tree(tmp_path / "a")["model.safetensors"] == tree(tmp_path / "c")["model.safetensors"]
    assert same_weights == (score != "random")


def test_first_keeps_the_first_units(pool: Pool, tmp_path: Path) -> None:
    done("prune", pool.get("llama"), "--keep", "ffn=20", "--score", "first", "--out", tmp_path / "child")
    for i in range(4):
        name = f"model.layers.{i}.mlp.up_proj.weight"
        assert torch.equal(weights(tmp_path / "child")[name], weights(pool.get("llama"))[name][:20])


def test_masked_twin(pool: Pool, tmp_path: Path) -> None:
    """The parent's shape and config, with the child's units and zeros elsewhere."""
    folder = pool.get("llama")
    done("prune", folder, "--keep", "ffn=20", "--mask", "--out", tmp_path / "twin")
    done("prune", folder, "--keep", "ffn=20", "--out", tmp_path / "child")
    assert config(tmp_path / "twin") == config(folder)
    parent, twin, child = weights(folder), weights(tmp_path / "twin"), weights(tmp_path / "child")
    assert {n: t.shape for n, t in twin.items()} == {n: t.shape for n, t in parent.items()}
    for name, t in twin.items():
        assert ((t == parent[name]) | (t == 0)).all()
        assert torch.equal(t[t != 0], child[name][child[name] != 0])
    ids = torch.arange(1, 17)[None]
    assert torch.allclose(strictly(tmp_path / "twin")(ids).logits, strictly(tmp_path / "child")(ids).logits, atol=1e-4)
    refused("verify", folder, tmp_path / "twin", says="masked twin")
    refused(
        "prune", pool.get("mixtral"), "--keep", "experts=2", "--mask", "--out", tmp_path / "x", says="silence experts"
    )


def test_norm_modes(pool: Pool, tmp_path: Path) -> None:
    """'none' copies norm weights as they are; 'auto' rescales them by sqrt(old / new)."""
    folder = pool.get("llama")
    for mode in ("auto", "none"):
        done("prune", folder, "--keep", "hidden=16", "--score", "first", "--norm", mode, "--out", tmp_path / mode)
    name = "model.norm.weight"
    kept = weights(folder)[name][:16]
    assert torch.equal(weights(tmp_path / "none")[name], kept)
    assert torch.allclose(weights(tmp_path / "auto")[name], kept * (24 / 16) ** 0.5)
    assert secateur("verify", folder, tmp_path / "none").code in (0, 1)
    assert json.loads((tmp_path / "none" / "secateur.json").read_text())["settings"]["norm"] == "none"


@pytest.mark.parametrize("family", ["nemotron_h", "mixtral", "llama"])
def test_shards(family: str, pool: Pool, tmp_path: Path) -> None:
    """Sharded parents and children hold what single files hold; transformers reads the index strictly."""
    one, many = tmp_path / "one", tmp_path / "many"
    done("prune", pool.get(family), "--keep", CUTS[family], "--out", one)
    done("prune", pool.get(family, "30kB"), "--keep", CUTS[family], "--shard-size", "15kB", "--out", many)
    index = json.loads((many / "model.safetensors.index.json").read_text())
    files = sorted(p.name for p in many.glob("*.safetensors"))
    assert len(files) > 2 and sorted(set(index["weight_map"].values())) == files
    assert not (many / "model.safetensors").exists() and not (one / "model.safetensors.index.json").exists()
    assert index["metadata"]["total_size"] == sizes(many)[1]
    ours, theirs = weights(one), weights(many)
    assert ours.keys() == theirs.keys() == index["weight_map"].keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    assert all(name in load_file(many / file) for name, file in index["weight_map"].items())
    strictly(many)


def test_half_precision(pool: Pool, tmp_path: Path) -> None:
    folder, child = pool.get("nemotron_h", dtype=torch.bfloat16), tmp_path / "child"
    # hidden stays: rescaled norm weights are rounded to bfloat16, and so small a network amplifies that
    done("prune", folder, "--keep", "ffn=20,ssm_heads=6,ssm_state=8,kv_heads=1", "--out", child)
    parent = weights(folder)
    assert all(t.dtype == torch.bfloat16 for t in parent.values() if t.ndim > 1)
    assert all(t.dtype == parent[n].dtype for n, t in weights(child).items())
    done("verify", folder, child)


def test_tied_embeddings_stay_tied(pool: Pool, tmp_path: Path) -> None:
    done("prune", pool.get("llama"), "--keep", "hidden=16", "--out", tmp_path / "child")
    assert "lm_head.weight" not in weights(tmp_path / "child")
    model = strictly(tmp_path / "child")
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_layers_by_count_and_by_name(pool: Pool, tmp_path: Path) -> None:
    folder = pool.get("llama")
    done("prune", folder, "--keep", "layers=3", "--score", "magnitude", "--out", tmp_path / "count")
    kept = json.loads((tmp_path / "count" / "secateur.json").read_text())["layers"]["kept"]
    held = weights(folder)
    by_layer = [
        torch.cat([t.flatten() for n, t in held.items() if n.startswith(f"model.layers.{i}.") and t.ndim > 1])
        for i in range(4)
    ]
    weakest = min(range(4), key=lambda i: float(by_layer[i].square().mean()))
    assert kept == [i for i in range(4) if i != weakest]
    done("prune", folder, "--drop-layers", str(weakest), "--out", tmp_path / "name")
    assert tree(tmp_path / "name")["model.safetensors"] == tree(tmp_path / "count")["model.safetensors"]
    assert config(tmp_path / "count")["num_hidden_layers"] == 3
    done("verify", folder, tmp_path / "count")
    refused("prune", pool.get("nemotron_h"), "--keep", "layers=3", "--out", tmp_path / "x", says="of several kinds")
    refused("plan", folder, "--keep", "layers=3", "--drop-layers", "1", says="exclude each other")


def test_everything_beside_the_weights(pool: Pool, tmp_path: Path) -> None:
    """Tokenizer, generation defaults, template and licence travel; code, pickles and the read-me stay."""
    parent, child = tmp_path / "parent", tmp_path / "child"
    shutil.copytree(pool.with_tokenizer, parent)
    carried = {"chat_template.jinja": "{{ messages }}", "LICENSE": "free"}
    left = {"README.md": "# parent", "evil.py": "import os", "optimizer.pt": "x", "notes.xyz": "?", ".hidden": ""}
    for name, text in (carried | left).items():
        (parent / name).write_text(text)
    (parent / "subfolder").mkdir()
    text = done("prune", parent, "--keep", "hidden=16", "--out", child).out
    same = [*carried, "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
    before, after = tree(parent), tree(child)
    assert after.keys() == {*same, "config.json", "model.safetensors", "secateur.json"}
    assert all(after[name] == before[name] for name in same)
    files = json.loads((child / "secateur.json").read_text())["audit"]["files"]
    assert files.keys() == before.keys()
    assert {n for n, what in files.items() if what == "carried"} == set(same)
    assert all(files[name].startswith("left: ") and name in text for name in (*left, "subfolder"))


def test_record(pool: Pool, tmp_path: Path) -> None:
    """secateur.json alone, with the parent, makes the child again: every kept unit, factor and name is in it."""
    folder, child = pool.get("nemotron_h", "30kB"), tmp_path / "child"
    options = ["--keep", CUTS["nemotron_h"], "--drop-layers", "4", "--score", "random", "--seed", 5]
    done("prune", folder, *options, "--out", child)
    entry = json.loads((child / "secateur.json").read_text())
    shards = sorted(folder.glob("*.safetensors"))
    assert entry["parent"]["sha256"] == {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in shards}
    assert entry["parent"]["source"] == str(folder)
    assert entry["settings"].items() >= {"score": "random", "seed": 5, "mask": False, "norm": "auto"}.items()
    assert entry["versions"].keys() >= {"secateur", "torch", "transformers", "safetensors", "python"}
    assert (entry["cost"]["after"]["parameters"], entry["cost"]["after"]["bytes"]) == sizes(child)
    assert entry["layers"] == {"before": 5, "kept": [0, 1, 2, 3]}
    audit, parent = entry["audit"]["tensors"], weights(folder)
    assert audit.keys() == parent.keys()
    assert sum(entry["audit"]["summary"].values()) == len(parent)
    anatomy = Anatomy(config(folder)).with_root(list(parent))
    cut = Cut(anatomy, KeepSets.from_json(anatomy, entry["kept"]), entry["layers"]["kept"], norm="auto")
    again = {t.name: cut.apply(t, parent[t.decl.name]) for t in cut.targets() if t.name is not None}
    made = weights(child)
    assert again.keys() == made.keys() and all(torch.equal(again[n], made[n]) for n in made)
    for old, what in audit.items():
        if what["action"] == "dropped":
            assert ".layers.4." in old and "layer 4 is dropped" in what["why"]
        else:
            new = made[what.get("name", old)]
            assert list(new.shape) == what.get("shape", list(parent[old].shape))
            assert (what["action"] == "copied") == torch.equal(new, parent[old]) or new.shape != parent[old].shape


def test_destinations(pool: Pool, tmp_path: Path) -> None:
    folder, child = pool.get("llama"), tmp_path / "deep" / "er" / "child"
    done("prune", folder, "--keep", "ffn=20", "--out", child)
    before = tree(tmp_path)
    refused("prune", folder, "--keep", "ffn=12", "--out", child, says="exists and is not empty")
    refused("prune", folder, "--keep", "ffn=12", "--out", child / "config.json", says="not a folder")
    refused("prune", folder, "--keep", "ffn=12", "--out", child / "config.json" / "x", says="config.json")
    assert tree(tmp_path) == before
    done("prune", folder, "--keep", "ffn=12", "--overwrite", "--out", child)
    assert config(child)["intermediate_size"] == 12
    other = tmp_path / "not-a-checkpoint"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    refused("prune", folder, "--keep", "ffn=12", "--overwrite", "--out", other, says="not a checkpoint to overwrite")
    assert (other / "thesis.tex").read_text() == "years of work"
    assert {p.name for p in tmp_path.iterdir()} == {"deep", "not-a-checkpoint"}


def test_overwriting_the_parent_itself(pool: Pool, tmp_path: Path) -> None:
    parent = shutil.copytree(pool.get("llama"), tmp_path / "model")
    (tmp_path / "link").symlink_to(parent)
    before = tree(tmp_path)
    for out in (parent, tmp_path / "link", tmp_path / "x" / ".." / "model"):
        for more in ([], ["--overwrite"]):
            refused("prune", parent, "--keep", "ffn=20", "--out", out, *more, says="never overwritten")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["we[ird]", "[/bold]x", "spaces and\nlines", "ünïcode", "-dash", "[red]"])
def test_names_are_only_names(name: str, pool: Pool, tmp_path: Path) -> None:
    """Folder names with brackets, line breaks or dashes are neither markup nor options."""
    place = tmp_path / name
    parent = shutil.copytree(pool.get("llama"), place / "parent")
    assert str(parent) in done("inspect", parent).out
    assert str(place) in done("plan", parent, "--keep", "ffn=20", "--out", place / "plan.json").out
    assert (
        f"wrote {place / 'child'}" in done("prune", parent, "--plan", place / "plan.json", "--out", place / "child").out
    )
    done("verify", parent, place / "child")
    refused("inspect", place / "none", says="no such file or folder")


def test_vocabulary(pool: Pool, tmp_path: Path) -> None:
    """Embedding, tokenizer and the ids in the configs shrink together; texts read as before."""
    folder, child = pool.with_tokenizer, tmp_path / "child"
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(CORPUS))
    done("prune", folder, "--keep", "vocab=300", "--text", text, "--out", child)
    model, tokenizer, old = strictly(child), AutoTokenizer.from_pretrained(child), AutoTokenizer.from_pretrained(folder)
    assert model.get_input_embeddings().weight.shape[0] == config(child)["vocab_size"] == 300
    assert max(tokenizer.get_vocab().values()) < 300 and len(tokenizer) <= 300
    generation = json.loads((child / "generation_config.json").read_text())
    for name, token in SPECIAL.items():
        assert (
            config(child)[f"{name}_token_id"]
            == generation[f"{name}_token_id"]
            == tokenizer.convert_tokens_to_ids(token)
        )
        assert tokenizer.convert_tokens_to_ids(token) != old.convert_tokens_to_ids(token)
    rows = {t: model.get_input_embeddings().weight[i] for t, i in tokenizer.get_vocab().items()}
    before = weights(folder)["model.embed_tokens.weight"]
    assert all(torch.equal(row, before[old.get_vocab()[token]]) for token, row in rows.items())
    for line in [*CORPUS, "naïve façade — 中文 🌹", "<|start|>the<|end|>"]:
        ids = tokenizer(line)["input_ids"]
        assert tokenizer.decode(ids) == line
        assert all(i < 300 for i in ids)
    done("verify", folder, child)
    files = json.loads((child / "secateur.json").read_text())["audit"]["files"]
    assert files["tokenizer.json"] == "trimmed"
    refused("plan", folder, "--keep", "vocab=400", says="more than the 328")
    refused("prune", folder, "--keep", "vocab=100", "--out", tmp_path / "x", says="below the minimum")


def test_vocabulary_without_a_tokenizer(pool: Pool, tmp_path: Path) -> None:
    done("prune", pool.get("llama"), "--keep", "vocab=40", "--out", tmp_path / "child")
    assert strictly(tmp_path / "child").get_input_embeddings().weight.shape[0] == 40
    done("verify", pool.get("llama"), tmp_path / "child")
    refused("prune", pool.get("llama"), "--keep", "vocab=4", "--out", tmp_path / "x", says="eos_token_id")


# ---- verify -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["lm_head.weight", "backbone.layers.0.mixer.A_log", "backbone.layers.1.mixer.down_proj.weight"]
)
def test_verify_sees_one_tampered_tensor(name: str, pool: Pool, tmp_path: Path) -> None:
    folder, child = pool.get("nemotron_h"), tmp_path / "child"
    done("prune", folder, "--keep", CUTS["nemotron_h"], "--out", child)
    held = weights(child)
    held[name] = held[name].roll(1, 0)
    save_file(held, child / "model.safetensors", {"format": "pt"})
    result = secateur("verify", folder, child)
    assert (result.code, result.err) == (1, "") and "fails" in result.out
    assert secateur("verify", folder, child, "--json").json["holds"] is False


def test_verify_in_double_precision(pool: Pool, tmp_path: Path) -> None:
    """The comparison computes in float32, whatever the files hold."""
    folder = pool.get("mamba2", dtype=torch.float64)
    done("prune", folder, "--keep", CUTS["mamba2"], "--out", tmp_path / "child")
    done("verify", folder, tmp_path / "child")


def test_verify_where_transformers_decodes_differently(pool: Pool, tmp_path: Path) -> None:
    """Nemotron-H clamps time steps below time_step_min in the full forward, but not while decoding."""
    folder = shutil.copytree(pool.get("nemotron_h"), tmp_path / "parent")
    held = weights(folder)
    held |= {n: t - 9 for n, t in held.items() if n.endswith("dt_bias")}
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    done("prune", folder, "--keep", CUTS["nemotron_h"], "--out", tmp_path / "child")
    told = done("verify", folder, tmp_path / "child", "--json").json
    assert told["cached_parent"] > 1e-3 and told["holds"]


def test_verify_where_the_cache_is_not_handed_back(tmp_path: Path) -> None:
    folder, child = build("recurrent_gemma", tmp_path / "parent"), tmp_path / "child"
    done("prune", folder, "--keep", "ffn=20", "--out", child)
    done("verify", folder, child)


def test_verify_refuses_what_is_no_pair(pool: Pool, tmp_path: Path) -> None:
    done("prune", pool.get("llama"), "--keep", "ffn=20", "--out", tmp_path / "child")
    refused("verify", pool.get("mixtral"), tmp_path / "child", says="was not cut from")
    refused("verify", pool.get("llama"), pool.get("llama"), says="secateur.json")
    refused("verify", pool.get("llama"), tmp_path / "none", says="no such file or folder")


# ---- hub, help --------------------------------------------------------------------------------------------------


def test_hub_ids_offline(tmp_path: Path) -> None:
    """In a process of its own, because the hub client reads its environment when it is imported."""
    code = "import sys; from secateur.cli import run; sys.exit(sum(run(['inspect', model]) for model in sys.argv[1:]))"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    models = ["no-such-organisation/no-such-model", "gpt2"]
    got = subprocess.run([sys.executable, "-c", code, *models], env=environment, capture_output=True, text=True)
    assert got.returncode == 2 + 2 and got.stdout == ""
    assert all(model in got.stderr for model in models)
    assert got.stderr.count("hint:") == 2 and "Traceback" not in got.stderr
    refused("inspect", "not a hub id", says="no such folder, and not a hub id")


@pytest.mark.parametrize("verb", ["inspect", "plan", "prune", "verify", "demo"])
def test_help_shows_an_example(verb: str) -> None:
    text = done(verb, "--help").out
    assert verb in text and "--" in text


def test_unknown_verbs_and_options(pool: Pool) -> None:
    refused("trim", says="No such command")
    refused("inspect", pool.get("llama"), "--jsn", says="No such option")
    refused("prune", pool.get("llama"), "--keep", "ffn=20", says="--out")
