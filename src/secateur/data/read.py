"""Documents from wherever text lies.

A source is a plain text file, a ``.jsonl`` or ``.parquet`` file, a folder of such files (read in the order of their
names), or ``hf://owner/name[:config]``. A plain text file is *one* document: blank lines separate paragraphs in most
prose, so only the end of a file is certain to end a document. Text of many documents belongs into JSONL, or is split
at blank lines on request (``documents="blank-line"``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from secateur.data import records
from secateur.errors import UsageError

Documents = Literal["file", "blank-line"]
HUB = "hf://"
JSONL, PARQUET, PLAIN = (".jsonl", ".ndjson"), (".parquet",), (".txt", ".text", ".md")


def read_texts(
    sources: str | Path | Sequence[str | Path],
    *,
    field: str = "text",
    split: str = "train",
    chat: Any = None,
    documents: Documents = "file",
) -> Iterator[str]:
    """Documents of all ``sources`` in order; empty ones are passed over. Nothing is read before the first is asked for.

    ``field``: where a record (JSONL, parquet, hub) keeps its text. ``split``: of a hub data set. ``chat``: a tokenizer
    whose chat template turns records with ``messages`` into text. ``documents``: what one document of a plain file is.
    Raises UsageError naming file and line for what cannot be read.
    """
    for source in [sources] if isinstance(sources, str | Path) else sources:
        if str(source).startswith(HUB):
            yield from _texts(records.hub(str(source).removeprefix(HUB), split), field, chat)
            continue
        for path in _files(Path(source)):
            if path.suffix in JSONL:
                yield from _texts(records.jsonl(path), field, chat)
            elif path.suffix in PARQUET:
                yield from _texts(records.parquet(path), field, chat)
            else:
                yield from _plain(path, documents)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise UsageError(
            f"{path}: no such file or folder of text",
            hint=f"a data set of the hub is written {HUB}owner/name or {HUB}owner/name:config",
        )
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix in (*JSONL, *PARQUET, *PLAIN) and p.is_file())
    if not found:
        raise UsageError(
            f"{path}: no text in this folder, expected files named *{', *'.join((*PLAIN, *JSONL, *PARQUET))}"
        )
    return found


def _plain(path: Path, documents: Documents) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as cause:
        raise UsageError(f"{path}: byte {cause.start} is not UTF-8", hint="convert the file to UTF-8 text") from cause
    except OSError as cause:
        raise UsageError(f"{path}: cannot be read: {cause.strerror}") from cause
    for document in [text] if documents == "file" else re.split(r"\n[ \t]*\n\s*", text):
        if document.strip():
            yield document


def _texts(found: Iterator[tuple[str, dict[str, Any]]], field: str, chat: Any) -> Iterator[str]:
    for where, record in found:
        text = _text(where, record, field, chat)
        if text.strip():
            yield text


def _text(where: str, record: dict[str, Any], field: str, chat: Any) -> str:
    if chat is not None and record.get("messages") is not None:
        return _chat(where, record["messages"], chat)
    value = record.get(field)
    if isinstance(value, str):
        return value
    if value is None and "messages" in record:
        raise UsageError(f"{where}: holds messages and no {field!r}", hint="ask for the chat template (--chat)")
    if field not in record:
        raise UsageError(f"{where}: no field {field!r}, only {', '.join(map(repr, record)) or 'none at all'}")
    raise UsageError(f"{where}: field {field!r} is {type(value).__name__}, expected a string")


def _chat(where: str, messages: Any, tokenizer: Any) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError(f"{where}: the tokenizer has no chat template to lay out messages with")
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception as cause:  # templates raise whatever they like on roles they do not know
        raise UsageError(f"{where}: the chat template refuses these messages: {cause}") from cause
