"""GGUF files: every tensor at its place with its values, packed codes untouched, and what cannot be said is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from secateur import api
from secateur.errors import InexpressibleError, UsageError
from secateur.export.compressed import CompressedTensors
from secateur.export.gguf import GGUF, write_gguf
from secateur.layerwise.quantize import QUANTIZE
from secateur.layerwise.run import Job, compress
from secateur.model import open_model
from tests.cli.command import secateur
from tests.export.gguf_rows import ROWS, VOCAB, bpe, build, read_back

pytest.importorskip("gguf", reason="the extra 'export' is not installed")


@pytest.mark.parametrize("name", ROWS)
def test_every_number_is_there(name: str, tmp_path: Path) -> None:
    """As many entries as the model has (tied heads and what a multiplier is folded into apart), names once."""
    with open_model(build(name, tmp_path / "model")) as model:
        done = write_gguf(model, tmp_path / "m.gguf", type="f32")
        fields, tensors, types = read_back(tmp_path / "m.gguf")
        extra = VOCAB * 64 if name == "falcon_h1" and model.anatomy.tied else 0
        assert sum(t.size for t in tensors.values()) == model.anatomy.count() + extra
        assert set(types.values()) == {"f32"} and done.types == {"f32": len(tensors)}
        assert fields["general.architecture"] == done.architecture
        assert fields[f"{done.architecture}.block_count"] == model.anatomy.n_layers


def test_rows_cover_every_declared_family() -> None:
    assert {n.partition("@")[0] for n in ROWS} == set(GGUF)


def test_values_of_a_hybrid(tmp_path: Path) -> None:
    with open_model(build("nemotron_h", tmp_path / "model")) as model:
        write_gguf(model, tmp_path / "m.gguf", type="f32")
        fields, tensors, _ = read_back(tmp_path / "m.gguf")
        read = {n: model.read(n).numpy() for n in model.weights.tensors}
    root = model.anatomy.layer_prefix(0)
    assert np.array_equal(tensors["blk.0.ssm_in.weight"], read[f"{root}mixer.in_proj.weight"])
    assert np.allclose(tensors["blk.0.ssm_a"][:, 0], -np.exp(read[f"{root}mixer.A_log"]))
    assert tensors["blk.0.ssm_norm.weight"].shape == (2, 64) and tensors["blk.0.ssm_conv1d.weight"].shape == (192, 4)
    assert fields["nemotron_h.attention.head_count_kv"] == [0, 0, 2, 0]
    assert fields["nemotron_h.feed_forward_length"] == [0, 96, 0, 0]


def test_what_llama_cpp_computes_otherwise_is_said(tmp_path: Path) -> None:
    """transformers' nemotron_h raises dt to time_step_min, whatever time_step_limit says."""
    folder = build("nemotron_h", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for least, told in ((0.001, True), (0.0, False)):
        (folder / "config.json").write_text(json.dumps(config | {"time_step_min": least}))
        notes = api.export(folder, tmp_path / f"{least}.gguf", to="gguf")["notes"]
        assert any("raises every dt" in n for n in notes) == told


def test_rotary_rows_are_reordered_in_pairs(tmp_path: Path) -> None:
    with open_model(build("llama", tmp_path / "model")) as model:
        write_gguf(model, tmp_path / "m.gguf", type="f32")
        q = model.read("model.layers.0.self_attn.q_proj.weight").numpy()
    got = read_back(tmp_path / "m.gguf")[1]["blk.0.attn_q.weight"]
    for head in range(4):
        for i in range(8):
            assert np.array_equal(got[16 * head + 2 * i], q[16 * head + i])
            assert np.array_equal(got[16 * head + 2 * i + 1], q[16 * head + 8 + i])


@pytest.mark.parametrize("type", ["f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
def test_types(type: str, tmp_path: Path) -> None:
    """Matrices have the type, norms and state do not, and the error is that of the type."""
    with open_model(build("granitemoehybrid", tmp_path / "model")) as model:
        done = write_gguf(model, tmp_path / "m.gguf", type=type)
        write_gguf(model, tmp_path / "plain.gguf", type="f32")
    _, tensors, types = read_back(tmp_path / "m.gguf")
    plain = read_back(tmp_path / "plain.gguf")[1]
    assert types["blk.0.ssm_in.weight"] == types["blk.0.ffn_down_exps.weight"] == type
    assert types["blk.0.ssm_a"] == types["blk.0.attn_norm.weight"] == types["blk.0.ssm_conv1d.weight"] == "f32"
    worst = {"f16": 1e-3, "bf16": 8e-3, "q8_0": 1e-2, "q5_1": 0.06, "q5_0": 0.08, "q4_1": 0.12, "q4_0": 0.15}[type]
    for name, t in tensors.items():
        assert np.abs(t - plain[name]).mean() <= worst * np.abs(plain[name]).mean() + 1e-12, name
    assert done.nbytes == (tmp_path / "m.gguf").stat().st_size


@pytest.mark.parametrize(("bits", "kind"), [(2, "q4_0"), (4, "q4_0"), (5, "q8_0"), (8, "q8_0")])
def test_packed_codes_are_kept(bits: int, kind: str, tmp_path: Path) -> None:
    """Codes go over bit by bit; only scales are rounded, to half precision. Rotary rows move with their scales."""
    method = QUANTIZE["rtn"]
    with open_model(build("llama", tmp_path / "model")) as model:
        job = Job(step="quantize", storage=CompressedTensors(model))
        settings = method.configure(bits=bits, group=32)
        with compress(model, None, tmp_path / "small", method, settings, job) as small:
            done = write_gguf(small, tmp_path / "m.gguf", type="f16")
            write_gguf(small, tmp_path / "plain.gguf", type="f32")
            codes, scale = small.weights.codes("model.layers.0.mlp.down_proj.weight")  # type: ignore[attr-defined]
    _, tensors, types = read_back(tmp_path / "m.gguf")
    assert done.kept == 14 and types["blk.0.attn_q.weight"] == types["blk.1.ffn_down.weight"] == kind
    want = codes.float() * scale.half().float().repeat_interleave(32, 1)
    assert np.array_equal(tensors["blk.0.ffn_down.weight"], want.numpy())
    plain = read_back(tmp_path / "plain.gguf")[1]
    for name in tensors:
        assert np.allclose(tensors[name], plain[name], rtol=2e-3, atol=1e-6), name


def test_what_llama_cpp_cannot_hold_is_refused(tmp_path: Path) -> None:
    for folder, why in (
        (build("mamba", tmp_path / "wide", expand=3), "twice the hidden size"),
        (build("mamba2", tmp_path / "bias", use_bias=True), "no place for tensor"),
    ):
        with open_model(folder) as model, pytest.raises(InexpressibleError, match=why):
            write_gguf(model, tmp_path / "m.gguf")
    assert not list(tmp_path.glob("*.gguf")) and not list(tmp_path.glob(".*"))


def test_bad_options_are_said(tmp_path: Path) -> None:
    folder = build("llama", tmp_path / "model")
    for argv in (["--to", "gguf", "--type", "q4_k"], ["--to", "onnx"], ["--to", "sparse", "--type", "f16"]):
        done = secateur("export", folder, *argv, "--out", tmp_path / "x")
        assert done.code == 2 and not (tmp_path / "x").exists(), argv
    (tmp_path / "y").write_text("mine")
    assert secateur("export", folder, "--to", "gguf", "--out", tmp_path / "y").code == 2
    assert (tmp_path / "y").read_text() == "mine"


def test_a_byte_level_tokenizer(tmp_path: Path) -> None:
    tokenizer = bpe()
    folder = build("llama", tmp_path / "model", vocab_size=tokenizer.get_vocab_size() + 3)
    tokenizer.save(str(folder / "tokenizer.json"))
    with open_model(folder) as model:
        done = write_gguf(model, tmp_path / "m.gguf")
    fields = read_back(tmp_path / "m.gguf")[0]
    tokens = fields["tokenizer.ggml.tokens"]
    assert fields["tokenizer.ggml.model"] == "gpt2" and fields["tokenizer.ggml.pre"] == "gpt-2"
    vocab = tokenizer.get_vocab()
    assert [tokens[i] for i in vocab.values()] == list(vocab)
    assert fields["tokenizer.ggml.token_type"][0] == 3 and fields["tokenizer.ggml.token_type"][-3:] == [5, 5, 5]
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    assert merges and fields["tokenizer.ggml.merges"] == [m if isinstance(m, str) else " ".join(m) for m in merges]
    assert "byte-level" in done.tokenizer


def test_a_splitting_rule_that_is_not_known(tmp_path: Path) -> None:
    folder = build("llama", tmp_path / "model", vocab_size=bpe().get_vocab_size())
    told = json.loads(bpe().to_str())
    split = {"type": "Split", "pattern": {"Regex": "abc"}, "behavior": "Isolated", "invert": False}
    told["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, told["pre_tokenizer"]]}
    (folder / "tokenizer.json").write_text(json.dumps(told))
    with open_model(folder) as model:
        with pytest.raises(UsageError, match="abc"):
            write_gguf(model, tmp_path / "m.gguf")
        write_gguf(model, tmp_path / "m.gguf", pre="qwen2")
    assert read_back(tmp_path / "m.gguf")[0]["tokenizer.ggml.pre"] == "qwen2"
