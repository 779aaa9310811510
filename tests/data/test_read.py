from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from secateur.data import read_texts
from secateur.errors import UsageError

from .tokenizers_ import byte_tokenizer


def lines(path: Path, *records: object) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records))
    return path


def test_plain_file_is_one_document_unless_split_at_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n\n  \nthree\n")
    assert list(read_texts(path)) == ["one\ntwo\n\n\n  \nthree\n"]
    assert list(read_texts(path, documents="blank-line")) == ["one\ntwo", "three\n"]


def test_folder_is_read_in_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "skipped.png").write_bytes(b"\xff")
    lines(tmp_path / "a.jsonl", {"text": "a1"}, "", {"text": "a2"})
    (tmp_path / "deep" / "c.md").write_text("c")
    assert list(read_texts(tmp_path)) == ["a1", "a2", "b", "c"]


def test_field_and_chat_template(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    path = lines(tmp_path / "a.jsonl", {"body": "plain"}, {"messages": messages, "body": "unused"})
    assert list(read_texts(path, field="body", chat=byte_tokenizer(chat=True))) == [
        "plain",
        "user: hi\nassistant: yes\n",
    ]


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("{not json", "2: not a line of JSON"),
        ([1], "2: list, expected a JSON object"),
        ({"body": "x"}, "no field 'text', only 'body'"),
        ({"text": 3}, "field 'text' is int"),
        ({"messages": []}, "holds messages"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, record: object, says: str) -> None:
    path = lines(tmp_path / "a.jsonl", {"text": "fine"}, record)
    with pytest.raises(UsageError, match=says):
        list(read_texts(path))


def test_other_bad_sources(tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9")
    with pytest.raises(UsageError, match="byte 3 is not UTF-8"):
        list(read_texts(latin))
    with pytest.raises(UsageError, match="no such file"):
        list(read_texts(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no text in this folder"):
        list(read_texts(tmp_path / "empty"))
    with pytest.raises(UsageError, match="no chat template"):
        list(read_texts(lines(tmp_path / "m.jsonl", {"messages": []}), chat=byte_tokenizer()))


def test_hub_through_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> Iterator[dict[str, str]]:
        asked.append((name, config, split, streaming))
        if name == "o/absent":
            raise FileNotFoundError("doesn't exist on the Hub")
        return iter([{"text": "x"}, {"text": "y"}])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert list(read_texts(["hf://o/n:en", "hf://o/n"], split="test")) == ["x", "y", "x", "y"]
    assert asked == [("o/n", "en", "test", True), ("o/n", None, "test", True)]
    with pytest.raises(UsageError, match=r"hf://o/absent, split 'train'.*Hub"):
        list(read_texts("hf://o/absent"))


@pytest.mark.parametrize(("source", "package"), [("hf://o/n", "datasets"), ("a.parquet", "pyarrow")])
def test_missing_extra_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(UsageError, match=package) as e:
        list(read_texts(source if source.startswith("hf") else tmp_path / source))
    assert "secateur[data]" in str(e.value.hint)


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="NOT CHECKED: parquet needs the extra secateur[data]")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"text": ["a", "b"], "n": [1, 2]}), tmp_path / "a.parquet")
    assert list(read_texts(tmp_path)) == ["a", "b"]
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UsageError, match="not a parquet file"):
        list(read_texts(tmp_path))
