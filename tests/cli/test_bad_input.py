"""Bad input: every command ends with exit code 0, or with 2 and one clear message - never anything else.

A mutation that does no harm must end in a child that plain transformers loads and whose logits are the masked parent's.
Nothing but the destination may appear anywhere, and the parent must not change by a byte.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secateur.evaluation.equality import load_strict
from tests.thorough import trials

from . import mutations
from .command import done, is_message, refused, secateur, tree
from .models import Pool

FAMILIES = [("nemotron_h", "30kB"), ("nemotron_h", "5GB"), ("mixtral", "5GB"), ("mixtral", "40kB"), ("llama", "5GB")]
INDEX = "model.safetensors.index.json"


def examples(n: int) -> settings:
    return settings(
        max_examples=trials(n // 3, n),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary folders of the commands lie inside the tree that is compared, so that leftovers are seen."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    yield


def fresh(source: Path, place: Path) -> Path:
    """A copy of a tiny checkpoint to damage, with an intact neighbour that a climbing path would reach."""
    for name in ("parent", "neighbour", "child"):
        shutil.rmtree(place / name, ignore_errors=True)
    shutil.copytree(source, place / "neighbour")
    return shutil.copytree(source, place / "parent")


def check(place: Path, *cuts: str, only_prune: bool = False) -> None:
    """inspect, plan and prune on the damaged parent of ``place``."""
    parent, child = place / "parent", place / "child"
    before = tree(place)
    inspect, plan = ("inspect", parent, "--json"), ("plan", parent, "--params", "60%")
    for argv in (*(() if only_prune else (inspect, plan)), ("prune", parent, "--out", child, *cuts)):
        result = secateur(*argv)
        assert result.code in (0, 2), (result.code, result.err)
        assert is_message(result.err) if result.code else not result.err, (argv, result.err)
        after = tree(place)
        new = {name for name in after if name not in before}
        assert all(name == "child" or name.startswith("child/") for name in new), new
        assert not new or (argv[0] == "prune" and result.code == 0)
        assert {n: h for n, h in after.items() if n in before} == before
        if new and computes(parent):
            assert secateur("verify", parent, child, "--tokens", "16").code == 0, secateur("verify", parent, child).out


def computes(folder: Path) -> bool:
    """Whether plain transformers makes finite logits of a checkpoint: of what it refuses, a child cannot be better."""
    try:
        with torch.no_grad():
            return bool(load_strict(folder)(torch.arange(3, 19)[None], use_cache=False).logits.isfinite().all())
    except Exception:  # whatever transformers makes of a nonsensical value
        return False


@pytest.mark.parametrize(("family", "shard"), FAMILIES)
def test_configs(family: str, shard: str, pool: Pool, tmp_path: Path) -> None:
    source = pool.get(family, shard)
    config = json.loads((source / "config.json").read_text())

    @examples(24)
    @given(changed=mutations.configs(config))
    def mutate(changed: dict[str, Any]) -> None:
        parent = fresh(source, tmp_path)
        (parent / "config.json").write_text(json.dumps(changed))
        check(tmp_path, "--keep", "hidden=16")

    mutate()


@pytest.mark.parametrize("family", ["nemotron_h", "mixtral", "mamba2"])
def test_lone_configs(family: str, pool: Pool, tmp_path: Path) -> None:
    """Without weights nothing contradicts a config's promises, however large."""
    config = json.loads((pool.get(family) / "config.json").read_text())
    path = tmp_path / "config.json"

    @examples(30)
    @given(changed=mutations.configs(config))
    def mutate(changed: dict[str, Any]) -> None:
        path.write_text(json.dumps(changed))
        for argv in (["inspect", path], ["plan", path, "--params", "60%"], ["plan", path, "--keep", "hidden=16"]):
            result = secateur(*argv)
            assert result.code in (0, 2)
            assert is_message(result.err) if result.code else not result.err, result.err

    mutate()


@pytest.mark.parametrize(("family", "shard"), FAMILIES)
def test_tensors(family: str, shard: str, pool: Pool, tmp_path: Path) -> None:
    """Missing and extra tensors, wrong dtypes and shapes, NaN and infinity - in files that are well-formed."""
    source = pool.get(family, shard)
    names = sorted(p.name for p in source.glob("*.safetensors"))

    @examples(16)
    @given(data=st.data(), index_follows=st.booleans())
    def mutate(data: st.DataObject, index_follows: bool) -> None:
        parent = fresh(source, tmp_path)
        path = parent / data.draw(st.sampled_from(names))
        mutations.rewrite(path, data.draw(mutations.tensors(mutations.read(path))))
        if index_follows:
            mutations.reindex(parent)
        check(tmp_path, "--keep", "hidden=16")

    mutate()


@pytest.mark.parametrize(("family", "shard"), FAMILIES[:3])
def test_shard_bytes(family: str, shard: str, pool: Pool, tmp_path: Path) -> None:
    """Truncated, grown and overwritten files; headers whose offsets overlap and whose sizes lie."""
    source = pool.get(family, shard)
    names = sorted(p.name for p in source.glob("*.safetensors"))

    @examples(16)
    @given(data=st.data())
    def mutate(data: st.DataObject) -> None:
        parent = fresh(source, tmp_path)
        path = parent / data.draw(st.sampled_from(names))
        raw = path.read_bytes()
        if data.draw(st.booleans()):
            size = int.from_bytes(raw[:8], "little")
            header = json.dumps(data.draw(mutations.trees(json.loads(raw[8 : 8 + size])))).encode()
            path.write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + size :])
        else:
            path.write_bytes(data.draw(mutations.raw_bytes(raw)))
        check(tmp_path, "--keep", "hidden=16")

    mutate()


def test_indices(pool: Pool, tmp_path: Path) -> None:
    source = pool.get("nemotron_h", "30kB")
    index = json.loads((source / INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    climbs = ["../neighbour/", "/etc/", "./", "a/../", "../../", str(tmp_path / "neighbour") + "/", "\0", "~/"]

    @examples(40)
    @given(data=st.data())
    def mutate(data: st.DataObject) -> None:
        parent = fresh(source, tmp_path)
        changed = data.draw(st.one_of(mutations.trees(index), st.just(index)))
        if changed is index:
            climb = data.draw(st.sampled_from(climbs))
            names = data.draw(st.sets(st.sampled_from(shards), min_size=1))
            weight_map = {n: f"{climb}{f}" if f in names else f for n, f in index["weight_map"].items()}
            changed = {**index, "weight_map": weight_map}
        (parent / INDEX).write_text(json.dumps(changed))
        check(tmp_path, "--keep", "hidden=16")

    mutate()


def test_tokenizers(pool: Pool, tmp_path: Path) -> None:
    """Trimming a vocabulary reads the tokenizer's files too."""
    source = pool.with_tokenizer
    names = ["tokenizer.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]

    @examples(30)
    @given(data=st.data())
    def mutate(data: st.DataObject) -> None:
        path = fresh(source, tmp_path) / data.draw(st.sampled_from(names))
        raw = path.read_bytes()
        if data.draw(st.integers(0, 3)):
            path.write_text(json.dumps(data.draw(mutations.trees(json.loads(raw)))))
        else:
            path.write_bytes(data.draw(mutations.raw_bytes(raw)))
        check(tmp_path, "--keep", "vocab=300", only_prune=True)

    mutate()


def test_plans(pool: Pool, tmp_path: Path) -> None:
    source = pool.get("nemotron_h")
    path = tmp_path / "plan.json"
    done("plan", source, "--keep", "hidden=16,ssm_heads=6", "--drop-layers", "4", "--out", path)
    intact = path.read_bytes()
    tree_of_plan = {k: v for k, v in json.loads(intact).items() if k not in ("before", "after", "notes")}

    @examples(40)
    @given(data=st.data())
    def mutate(data: st.DataObject) -> None:
        fresh(source, tmp_path)
        if data.draw(st.integers(0, 3)):
            path.write_text(json.dumps(data.draw(mutations.trees(tree_of_plan))))
        else:
            path.write_bytes(data.draw(mutations.raw_bytes(intact)))
        check(tmp_path, "--plan", str(path), only_prune=True)

    mutate()


_PIECES = ["hidden", "ffn", "layers", "ssm_heads", "vocab", "=", "=", ",", "-", "%", "16", "0", "9" * 30, "1e9", ".5",
"GB", "M",
           " ", "\n", "[/red]", "\u2028", "\udcff", "é", "NaN", "inf", "--", "0x10", "٣", "²"]  # fmt: skip
_OPTIONS = {
    "--keep": ["hidden=16", "hidden=0", "hidden=25", "hidden=16,hidden=16", "=", ",", "ffn", "layers=99", "layers=0",
    "d=16",
               "experts=2", "hidden=-1", "ssm_groups=3", "ssm_heads=7", "vocab=1"],
    "--params": ["0", "0%", "1%", "101%", "1e400", "60", "4X", "-5", "60%%", "1e-5"],
    "--bytes": ["0B", "1", "8QB", "1e400GB", "60 %"],
    "--drop-layers": ["0-4", "9", "3-1", "0-999999", "1,,2", "-1", "a", "0-3", "0,2,3"],
    "--shard-size": ["0", "1", "x", "1e400GB", "-1GB", "50%", "10kB"],
    "--score": ["gone", "", "FIRST"],
    "--seed": ["-1", "x", str(2**70)],
    "--norm": ["gone", ""],
    "--text": ["/no/such/file", "/", "/dev/null"],
    "--plan": ["/no/such/file", "/", "/dev/null"],
}  # fmt: skip


def test_options(pool: Pool, tmp_path: Path) -> None:
    source = fresh(pool.get("nemotron_h"), tmp_path)

    @st.composite
    def options(draw: st.DrawFn) -> list[str]:
        names = draw(st.lists(st.sampled_from(sorted(_OPTIONS)), min_size=1, max_size=3, unique=True))
        junk = st.lists(st.sampled_from(_PIECES), max_size=6).map("".join)
        return [f"{name}={draw(st.sampled_from(_OPTIONS[name]) | junk)}" for name in names]

    @examples(120)
    @given(chosen=options())
    def mutate(chosen: list[str]) -> None:
        shutil.rmtree(tmp_path / "child", ignore_errors=True)
        before = tree(tmp_path)
        result = secateur("prune", source, "--out", tmp_path / "child", *chosen)
        assert result.code in (0, 2)
        assert is_message(result.err) if result.code else not result.err, result.err
        after = tree(tmp_path)
        assert {n: h for n, h in after.items() if n.split("/")[0] != "child"} == before
        if result.code == 0:
            assert secateur("verify", source, tmp_path / "child", "--tokens", "16").code == 0

    mutate()


def test_records(pool: Pool, tmp_path: Path) -> None:
    """verify reads a child's secateur.json: damaged, it is refused, or found not to fit (exit code 1)."""
    source, child = fresh(pool.get("nemotron_h"), tmp_path), tmp_path / "child"
    done("prune", source, "--keep", "hidden=16,ssm_heads=4", "--drop-layers", "4", "--out", child)
    intact = (child / "secateur.json").read_bytes()
    tree_of_record = {k: v for k, v in json.loads(intact).items() if k in ("parent", "settings", "layers", "kept")}

    @examples(40)
    @given(data=st.data())
    def mutate(data: st.DataObject) -> None:
        if data.draw(st.integers(0, 3)):
            (child / "secateur.json").write_text(json.dumps(data.draw(mutations.trees(tree_of_record))))
        else:
            (child / "secateur.json").write_bytes(data.draw(mutations.raw_bytes(intact)))
        before = tree(tmp_path)
        result = secateur("verify", source, child, "--tokens", "16")
        assert result.code in (0, 1, 2)
        assert is_message(result.err) if result.code == 2 else not result.err, result.err
        assert tree(tmp_path) == before

    mutate()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"hidden_size": 10**400}, "no reader of 64-bit integers"),
        ({"hidden_size": 2**40}, "a size of 1099511627776, which no model has"),
        ({"layers_block_type": ["mlp"] * 200_000}, "'num_hidden_layers' is 200000, which no model has"),
        ({"n_routed_experts": 10**7, "layers_block_type": ["moe"] * 5}, "tensors, which no model has"),
        ({"num_labels": 10**9}, "'num_labels' is 1000000000, which no model has"),
        ({"layers_block_type": ["mlp", "what"]}, "what"),
        ({"quantization_config": {"quant_method": "awq"}}, "the checkpoint is quantized (awq)"),
        ({"model_type": "bert"}, "no family is declared for model_type 'bert'"),
        ({"dtype": "int4"}, "dtype"),
        ({"num_attention_heads": 3}, "expected a multiple of 2"),
        ({"mamba_num_heads": 7}, "expected a multiple of"),
    ],
)
def test_what_is_wrong_with_a_config_is_said(fields: dict[str, Any], says: str, pool: Pool, tmp_path: Path) -> None:
    config = json.loads((pool.get("nemotron_h") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    for verb in (["inspect"], ["plan", "--params", "60%"]):
        refused(*verb, tmp_path / "config.json", says=says)


def test_what_is_wrong_with_a_checkpoint_is_said(pool: Pool, tmp_path: Path) -> None:
    """One fault at a time, each with a part of the message a person needs."""

    def faulty(fault: Callable[[dict[str, torch.Tensor]], object], says: str, verb: str = "inspect") -> None:
        parent = fresh(pool.get("llama"), tmp_path)
        held = mutations.read(parent / "model.safetensors")
        fault(held)
        mutations.rewrite(parent / "model.safetensors", held)
        options = ["--keep", "ffn=20", "--out", tmp_path / "child"] if verb == "prune" else []
        refused(verb, parent, *options, says=says)
        assert not (tmp_path / "child").exists()

    up = "model.layers.2.mlp.up_proj.weight"
    faulty(lambda t: t.pop(up), f"the config promises tensors the files do not hold: {up}")
    faulty(lambda t: t.update(extra=torch.ones(2)), "no layout of family 'llama' covers tensor 'extra'")
    faulty(lambda t: t.update({up: t[up].T.contiguous()}), f"tensor '{up}' has shape (24, 40)")
    faulty(lambda t: t.update({up: t[up].to(torch.int8)}), f"tensor '{up}' has dtype I8")
    faulty(lambda t: t[up].view(-1)[7].fill_(float("nan")), f"tensor '{up}' holds NaN or infinite values", "prune")
    faulty(lambda t: t[up].view(-1)[7].fill_(float("-inf")), f"tensor '{up}' holds NaN or infinite values", "prune")
    parent = fresh(pool.get("llama"), tmp_path)
    refused("inspect", parent / "model.safetensors", says="Name the folder that holds the file")
    (parent / "model.safetensors").unlink()
    (parent / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    refused("inspect", parent, says="weights only as pickles (")
    (parent / "pytorch_model.bin").unlink()
    refused("prune", parent, "--keep", "ffn=20", "--out", tmp_path / "child", says="this needs weights")
