"""What is local is never sent to the hub; what the hub refuses ends in a next step. No test reaches the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import filter_repo_objects

from secateur.checkpoint import resolve
from secateur.errors import CheckpointError
from tests.checkpoint import tiny


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))


@pytest.mark.usefixtures("no_hub")
def test_local_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org").mkdir()
    tiny.write(tmp_path / "org" / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("org/model") == Path("org/model")
    assert resolve("~/org/model") == tmp_path / "org" / "model"
    assert resolve(tmp_path) == tmp_path
    assert resolve("org/model/config.json") == Path("org/model/config.json")


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    "path",
    [
        "./org/model",
        "/org/model",
        "~/org/model",
        "../x",
        Path("org/model"),
        "a/b/c",
        "",
        "a b",
        "a\0b",
        "x" * 5000,
        "ö/x",
    ],
)
def test_what_looks_local_is_never_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CheckpointError):
        resolve(path)


@pytest.mark.usefixtures("no_hub")
def test_a_weights_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    with pytest.raises(CheckpointError, match=r"(?s)expected a checkpoint folder.*folder that holds"):
        resolve(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="neither"):
        resolve("/dev/null")


def make(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    error.args = ("it went wrong\nand more",)
    return error


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        (hub_errors.GatedRepoError, "terms"),
        (hub_errors.RepositoryNotFoundError, "spelling"),
        (hub_errors.RevisionNotFoundError, "revision"),
        (hub_errors.HFValidationError, "organisation/name"),
        (hub_errors.LocalEntryNotFoundError, "cannot be reached"),
        (hub_errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE"),
        (OSError, "free space"),
        (RuntimeError, "connection"),
    ],
)
def test_hub_errors_name_the_next_step(monkeypatch: pytest.MonkeyPatch, kind: type[Exception], hint: str) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise make(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError, match=f"(?s)org/model.*hint: .*{hint}"):
        resolve("org/model", "main")


@pytest.mark.parametrize("weights", [True, False])
def test_what_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: bool) -> None:
    """The patterns are run through the hub client's own filter."""
    there = ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.model"]
    there += ["merges.txt", "chat_template.jinja", "LICENSE", "tokenizer.json", "additional_chat_templates/tool.jinja"]
    never = ["pytorch_model.bin", "modeling_x.py", "pytorch_model.bin.index.json", "original/model.safetensors"]
    never += ["consolidated.00.safetensors", "model.gguf", "onnx/model.onnx", "figure.png", "optimizer.pt"]
    asked: dict[str, Any] = {}

    def download(hub_id: str, **options: Any) -> str:
        asked.update(options, id=hub_id)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve("org/model", "v1", weights=weights) == tmp_path
    assert (asked["id"], asked["revision"]) == ("org/model", "v1")
    patterns = {name: asked[name] for name in ("allow_patterns", "ignore_patterns")}
    wanted = [name for name in there if weights or not name.endswith(".safetensors")]
    assert list(filter_repo_objects(there + never, **patterns)) == wanted
