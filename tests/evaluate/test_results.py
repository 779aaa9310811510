"""The whole document: a parent and its children, through the library and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from secateur.cli import run
from secateur.errors import UsageError
from secateur.evaluation.results import Settings, evaluate, load_results
from secateur.evaluation.size import cache_bytes, size
from secateur.model import open_model
from secateur.pruning.plan import make_plan
from secateur.pruning.run import prune

from .models import TEXT, hybrid

WINDOW = 32


@pytest.fixture(scope="module")
def child_folder(parent_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("children") / "child"
    with open_model(parent_folder) as parent:
        prune(parent, make_plan(parent, keep={"ffn": 24, "ssm_heads": 4}), out)
    return out


@pytest.fixture(scope="module")
def trimmed_folder(parent_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("children") / "trimmed"
    with open_model(parent_folder) as parent:
        prune(parent, make_plan(parent, keep={"vocab": 290}), out, texts=[TEXT[:200]])
    return out


def measured(parent: Path | None, children: list[Path], text: Path, **settings: Any) -> dict[str, Any]:
    above = None if parent is None else open_model(parent)
    found = evaluate(
        [open_model(c) for c in children], [text], parent=above, settings=Settings(window=WINDOW, **settings)
    )
    plain: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    return plain


def test_parent_and_children(parent_folder: Path, child_folder: Path, trimmed_folder: Path, text_file: Path) -> None:
    found = measured(
        parent_folder, [parent_folder, child_folder, trimmed_folder], text_file, prompts=2, sample_tokens=5
    )
    parent, same, child, trimmed = found["models"]
    assert [m["role"] for m in found["models"]] == ["parent", "child", "child", "child"]
    assert parent["agreement"] is None
    assert (same["agreement"]["kl"], same["agreement"]["top1"]) == (0.0, 1.0)
    assert same["text"] == parent["text"]
    assert child["agreement"]["kl"] > 0 and child["size"]["parameters"] < parent["size"]["parameters"]
    assert child["record"]["step"] == "prune" and "kept" not in child["record"]
    assert child["shape"]["ffn"] == 24 and child["shape"]["layers"] == 5
    assert found["text"][0]["bytes"] == len(TEXT.encode()) == parent["text"]["total"]["bytes"] + first_bytes(TEXT)
    assert trimmed["agreement"]["trimmed"] and trimmed["agreement"]["outside_mass"] > 0
    assert trimmed["agreement"]["kl"] == pytest.approx(0, abs=1e-6)
    assert trimmed["text"]["total"]["tokens"] > parent["text"]["total"]["tokens"]
    assert len(found["prompts"]) == 2 == len(parent["samples"])
    assert same["samples"] == parent["samples"]


def first_bytes(text: str) -> int:
    from .models import tokenizer

    end = tokenizer()(text, return_offsets_mapping=True)["offset_mapping"][0][1]
    return len(text[:end].encode())


def test_strangers_are_compared_by_bytes_only(parent_folder: Path, text_file: Path, tmp_path: Path) -> None:
    other = hybrid(tmp_path / "other", size=300)
    found = measured(parent_folder, [other], text_file)["models"]
    assert found[1]["agreement"] is None and "300" in found[1]["why_no_agreement"]
    assert found[1]["text"]["total"]["bits_per_byte"] > 0
    # without a BOS the first token is not scored, and the two cut it differently
    scored = [m["text"]["total"]["bytes"] for m in found]
    assert all(len(TEXT.encode()) - 8 <= b < len(TEXT.encode()) for b in scored)


def test_a_relabelled_vocabulary_is_no_agreement(parent_folder: Path, text_file: Path, tmp_path: Path) -> None:
    """The same number of tokens under other ids would give a number that means nothing."""
    other = hybrid(tmp_path / "other")
    path = other / "tokenizer.json"
    raw = json.loads(path.read_text())
    vocab = raw["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    path.write_text(json.dumps(raw))
    found = measured(parent_folder, [other], text_file)["models"][1]
    assert found["agreement"] is None
    assert "token 'a'" in found["why_no_agreement"] or "token 'b'" in found["why_no_agreement"]


def test_size_is_what_lies_on_disk(parent_folder: Path) -> None:
    with open_model(parent_folder) as model:
        found = size(model, 100)
        assert found["disk_bytes"] == (parent_folder / "model.safetensors").stat().st_size
        assert found["parameters"] - found["non_embedding"] == 2 * 320 * 24
        # one attention layer: 2 x 2 heads x 8 channels; two Mamba layers: 8 heads x 6 channels x 12 states
        assert cache_bytes(model, 100) - cache_bytes(model, 1) == 99 * 2 * 2 * 8 * 4
        conv = 2 * (8 * 6 + 2 * 2 * 12) * 4 * 4
        assert cache_bytes(model, 1) == 2 * 2 * 8 * 4 + 2 * 8 * 6 * 12 * 4 + conv


def test_the_command(
    parent_folder: Path, child_folder: Path, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.json"
    argv = ["eval", str(child_folder), "--parent", str(parent_folder), "--text", str(text_file), "--window", "32"]
    assert run([*argv, "--limit", "500B", "--json", "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == load_results(out)
    assert printed["text"][0]["bytes"] in range(497, 501)
    assert run(argv) == 0
    shown = capsys.readouterr().out
    assert "bits per byte" in shown and "top-1" in shown


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--text", "missing.txt"], "missing.txt"),
        (["--text", "TEXT", "--window", "5000"], "at most 256"),
        (["--text", "TEXT", "--window", "8", "--stride", "9"], "stride"),
        (["--text", "TEXT", "--device", "nowhere"], "nowhere"),
        (["--text", "TEXT", "--out", "/no/such/folder/r.json"], "does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    options: list[str], says: str, parent_folder: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(text_file) if o == "TEXT" else o for o in options]
    assert run(["eval", str(parent_folder), *argv]) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_results_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    for content in ("{", "[]", '{"secateur_eval": 99}', '{"secateur_eval": 1}', '{"secateur_eval": 1, "models": [{}]}'):
        path.write_text(content)
        with pytest.raises(UsageError):
            load_results(path)
