"""Which files travel with the weights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from secateur.checkpoint import copy_passengers, list_passengers
from secateur.errors import CheckpointError
from tests.checkpoint import tiny
from tests.checkpoint.test_store import hub_snapshot

CARRIED = [
    "LICENSE",
    "NOTICE.txt",
    "added_tokens.json",
    "additional_chat_templates/tool_use.jinja",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
]
LEFT = [
    ".gitattributes",
    "README.md",
    "config.json",
    "consolidated.safetensors",
    "figure.png",
    "model.gguf",
    "model.safetensors",
    "model.safetensors.index.json",
    "modeling_x.py",
    "onnx",
    "optimizer.pt",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "secateur.json",
    "tokenization_x.py",
    "trainer_state.json",
]


def populate(folder: Path) -> None:
    for name in (*CARRIED, *LEFT):
        if name == "onnx":
            (folder / name).mkdir()
            continue
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"content of {name}")


def test_the_carried_files_arrive_unchanged_and_nothing_else(tmp_path: Path) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    parent.mkdir()
    child.mkdir()
    populate(parent)
    listed = copy_passengers(parent, child)
    assert sorted(p.name for p in listed if p.action == "carried") == sorted(CARRIED)
    assert sorted(p.name for p in listed if p.action == "left") == sorted(LEFT)
    assert all(passenger.reason for passenger in listed)
    assert {name: (child / name).read_text() for name in CARRIED} == {name: f"content of {name}" for name in CARRIED}
    assert sorted(tiny.fingerprint(child)) == sorted(CARRIED)


def test_a_caller_may_leave_some_behind(tmp_path: Path) -> None:
    populate(tmp_path)
    child = tmp_path / "child"
    child.mkdir()
    chosen = [p for p in list_passengers(tmp_path) if p.name != "tokenizer.json"]
    assert copy_passengers(tmp_path, child, chosen) == chosen
    assert not (child / "tokenizer.json").exists()


def test_links_are_copied_as_files_and_may_not_lead_out(tmp_path: Path) -> None:
    snapshot = hub_snapshot(tmp_path / "cache", shared=False)
    blob = snapshot.parents[1] / "blobs" / "0123"
    blob.write_text("tokens")
    (snapshot / "tokenizer.json").symlink_to("../../blobs/0123")
    (tmp_path / "secret").write_text("mine")
    (snapshot / "LICENSE").symlink_to(tmp_path / "secret")
    (snapshot / "merges.txt").symlink_to("nowhere")
    os.mkfifo(snapshot / "vocab.json")
    child = tmp_path / "child"
    child.mkdir()
    actions = {passenger.name: passenger.action for passenger in copy_passengers(snapshot, child)}
    assert not (child / "tokenizer.json").is_symlink()
    assert (child / "tokenizer.json").read_text() == "tokens"
    assert [actions[name] for name in ("LICENSE", "merges.txt", "vocab.json")] == ["left"] * 3
    assert [path.name for path in child.iterdir()] == ["tokenizer.json"]


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be listed"):
        list_passengers(tmp_path / "missing")
    (tmp_path / "tokenizer.json").touch()
    (tmp_path / "child").mkdir()
    (tmp_path / "child" / "tokenizer.json").touch()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        copy_passengers(tmp_path, tmp_path / "child")
