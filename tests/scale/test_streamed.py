"""A model measured block by block is the loaded one, and takes the memory of a block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.errors import UsageError
from secateur.evaluation import memory, streamed
from secateur.evaluation.load import Place
from secateur.evaluation.results import Settings, evaluate
from secateur.evaluation.speed import SpeedSettings
from secateur.evaluation.streamed import Streaming
from secateur.model import open_model
from secateur.pruning.plan import make_plan
from secateur.pruning.run import prune
from tests.evaluate.models import TEXT, hybrid

FLOAT32 = Place("cpu", "float32", fast=True)


@pytest.fixture(scope="module")
def parent_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hybrid(tmp_path_factory.mktemp("models") / "parent")


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "held-out.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def child(parent: Path, out: Path, **keep: int) -> Path:
    with open_model(parent) as model:
        prune(model, make_plan(model, keep=keep), out, texts=[TEXT[:200]])
    return out


def numbers(value: Any) -> list[float]:
    """All floats of a nested table."""
    if isinstance(value, dict):
        return [n for k in sorted(value) for n in numbers(value[k])]
    if isinstance(value, list):
        return [n for v in value for n in numbers(v)]
    return [float(value)] if isinstance(value, float | int) else []


@pytest.mark.parametrize(("stride", "spilled"), [(0, False), (16, True)])
def test_streamed_is_loaded(stride: int, spilled: bool, parent_folder: Path, text_file: Path, tmp_path: Path) -> None:
    """A child, one with a trimmed vocabulary (the parent reads other ids), the parent; segments and sliding windows."""
    children = [
        child(parent_folder, tmp_path / "child", ffn=24, ssm_heads=4),
        child(parent_folder, tmp_path / "trimmed", vocab=290),
    ]
    found = []
    for stream in (False, True):
        settings = Settings(window=32, stride=stride, batch=4, place=FLOAT32, stream=stream)
        how = Streaming(spill=tmp_path / "spill" if spilled else None)
        opened = [open_model(c) for c in children]
        found.append(evaluate(opened, [text_file], parent=open_model(parent_folder), settings=settings, streaming=how))
    for a, b in zip(found[0]["models"], found[1]["models"], strict=True):
        assert numbers(b["text"]) == pytest.approx(numbers(a["text"]), rel=1e-5)
        assert (a["agreement"] is None) == (b["agreement"] is None)
        if a["agreement"] is not None:
            assert numbers(b["agreement"]) == pytest.approx(numbers(a["agreement"]), rel=1e-4, abs=1e-6)
    assert found[1]["settings"]["stream"] and found[1]["settings"]["place"]["fast_kernels"]
    assert not spilled or list((tmp_path / "spill").iterdir()) == []


def test_one_block_of_one_model_is_there_at_a_time(
    parent_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most: list[int] = []
    walk = streamed.walk

    def watched(*args: Any, **kwargs: Any) -> Any:
        done = walk(*args, **kwargs)
        most.append(sum(not p.is_meta for block in done.skeleton.blocks for p in block.parameters()))
        return done

    monkeypatch.setattr(streamed, "walk", watched)
    monkeypatch.setattr("secateur.evaluation.results.loaded", lambda *a: pytest.fail("the model was loaded"))
    settings = Settings(window=32, place=FLOAT32, stream=True)
    evaluate([open_model(parent_folder)], [text_file], parent=open_model(parent_folder), settings=settings)
    assert most == [0, 0]


def test_streams_by_itself_when_memory_is_too_small(
    parent_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(parent_folder)
    need = 4 * model.anatomy.count()
    for free, stream in ((need * 2, False), (need // 2, True), (None, False)):
        monkeypatch.setattr(streamed, "available", lambda free=free: free)
        found = evaluate([model], [text_file], settings=Settings(window=32, place=FLOAT32))
        assert found["settings"]["stream"] is stream


@pytest.mark.parametrize(("over", "says"), [({"prompts": 1}, "--samples"), ({"speed": SpeedSettings()}, "--speed")])
def test_what_needs_the_whole_model_is_refused(
    over: dict[str, Any], says: str, parent_folder: Path, text_file: Path
) -> None:
    with pytest.raises(UsageError, match=says):
        evaluate([open_model(parent_folder)], [text_file], settings=Settings(window=32, stream=True, **over))


def test_memory_at_hand_is_what_is_left_of_the_least(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    assert memory.available() == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    import resource

    held = memory._table(Path("/proc/self/status"))["VmData"]
    limit = held + (1 << 30)
    monkeypatch.setattr(
        resource, "getrlimit", lambda what: (limit if what == resource.RLIMIT_DATA else resource.RLIM_INFINITY,) * 2
    )
    left = memory.available()
    assert left is not None and abs(left - (1 << 30)) < 1 << 28


def test_text_that_was_not_read_is_not_made_up(parent_folder: Path) -> None:
    with streamed.streamed(open_model(parent_folder), FLOAT32, Streaming()) as network:
        network.prepare([torch.tensor([[3, 4, 5]])])
        assert next(network.slices(torch.tensor([[3, 4, 5]]), 0, 8)).shape == (1, 3, 320)
        with pytest.raises(Exception, match="has not read"):
            next(network.slices(torch.tensor([[3, 4, 6]]), 0, 8))


def test_a_small_file_takes_the_memory_of_a_small_file(tmp_path: Path) -> None:
    import tracemalloc

    from secateur.checkpoint.files import read_small

    (tmp_path / "note.json").write_text("{}")
    tracemalloc.start()
    assert read_small(tmp_path / "note.json", 1 << 30) == b"{}"
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 20
