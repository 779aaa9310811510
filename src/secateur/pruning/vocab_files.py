"""Rewrite a checkpoint's tokenizer files for a trimmed vocabulary.

New ids: kept tokens of the model vocabulary in their old order, then added tokens beyond it, then rows without a token.
For an ordinary tokenizer that is plain old-id order; for one with holes it is the order in which the ``tokenizers``
library numbers added tokens on loading, so that what is written is what loads.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from secateur.errors import CheckpointError, SecateurError, UsageError
from secateur.pruning.vocab_ids import apply_edits, edited_fields, needed_ids, vocab_rows
from secateur.pruning.vocab_tokenizer import BpeTokenizer, parse_bpe, post_processors

_CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json")
_VERBATIM = ("special_tokens_map.json", "chat_template.jinja", "chat_template.json")
_SLOW = "a vocabulary of another format, which a trim cannot rewrite; tokenizer.json carries everything"
_LEFT = dict.fromkeys(("*.model", "*.spm", "*.tiktoken", "vocab.txt", "tekken.json"), _SLOW)


@dataclass(frozen=True)
class VocabTrim:
    """What a trim did. ``kept[new] = old`` for every embedding row; ``mapping`` (old -> new) covers every token.

    ``files`` were written, ``left`` were not, each with the reason. ``config_edits`` are the token-id fields of
    config.json that change (``section.field`` for a field of a section); ``vocab_size``, not among
    them, is ``len(kept)``.
    """

    kept: tuple[int, ...]
    mapping: Mapping[int, int]
    files: tuple[str, ...]
    left: Mapping[str, str]
    config_edits: Mapping[str, Any]


@dataclass(frozen=True)
class _Trim:
    """The parent's files and the renumbering, shared by the writers of the single files."""

    folder: Path
    raw: dict[str, Any]
    bpe: BpeTokenizer
    mapping: dict[int, int]
    rows: int
    new: dict[str, Any]


def needed_tokens(folder: Path, *, rows: int | None = None) -> set[int]:
    """Ids that the configs beside a tokenizer need: bos, eos, pad, forced, image, ... and declared added tokens."""
    _, bpe = read_tokenizer(folder)
    return _needed(folder, bpe, _rows(folder, bpe, rows))


def trim_tokenizer(folder: Path, kept: Sequence[int], out: Path, *, rows: int | None = None) -> VocabTrim:
    """Write the tokenizer files of ``folder`` for the vocabulary ``kept`` into the existing folder ``out``.

    ``kept`` comes from ``choose_tokens`` or ``close_tokens``. ``rows`` (embedding rows) is read from config.json unless
    given. config.json itself is not written: its changes come back as ``config_edits``.

    Raises ``UsageError`` for a ``kept`` that is not closed, lacks needed tokens, repeats or leaves the vocabulary,
    ``CheckpointError`` and ``ConfigError`` for malformed files.
    """
    folder, out = Path(folder), Path(out)
    if not out.is_dir() or out.resolve() == folder.resolve():
        raise UsageError(f"output folder {out} must exist and differ from the checkpoint's")
    raw, bpe = read_tokenizer(folder)
    load_library(raw)  # what the library refuses is not ours to mend
    rows = _rows(folder, bpe, rows)
    bpe.check_rows(rows)
    _check_kept(kept, bpe, _needed(folder, bpe, rows), rows)
    order, mapping = _number(kept, bpe, rows)
    trim = _Trim(folder, raw, bpe, mapping, rows, _trimmed_tokenizer(raw, bpe, mapping))
    files, left = {"tokenizer.json": _dump(trim.new)}, _left_behind(folder)
    for name, rewrite in _REWRITERS.items():
        if (folder / name).is_file():
            try:
                files[name] = rewrite(trim, name)
            except _LeftBehindError as reason:
                left[name] = str(reason)
    config = read_object(folder / "config.json", missing={})
    edits = edited_fields(config, mapping, rows, "config.json")
    _write(out, files)
    return VocabTrim(tuple(order), mapping, tuple(sorted(files)), left, edits)


def read_tokenizer(folder: Path) -> tuple[dict[str, Any], BpeTokenizer]:
    """tokenizer.json of a checkpoint, as it is and checked."""
    raw = read_object(Path(folder) / "tokenizer.json")
    return raw, parse_bpe(raw)


def load_library(raw: Mapping[str, Any]) -> Tokenizer:
    """The library's tokenizer, without truncation, padding and dropout: every text as it is, the same every time."""
    try:
        tokenizer = Tokenizer.from_str(json.dumps(raw))
    except Exception as error:  # the library raises plain Exception for whatever it cannot read
        raise CheckpointError(f"tokenizer.json: the tokenizers library refuses it: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.model.dropout = None
    return tokenizer


def read_object(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON object from a file; ``missing`` stands in for a file that is not there."""
    if missing is not None and not path.exists():
        return missing
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        hint = None
        if path.name == "tokenizer.json" and not path.exists():
            hint = "trimming needs a fast tokenizer; load and save the tokenizer with transformers to get one"
        raise CheckpointError(f"cannot read {path}: {error}", hint=hint) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def _rows(folder: Path, bpe: BpeTokenizer, rows: int | None) -> int:
    if rows is None:
        rows = vocab_rows(read_object(Path(folder) / "config.json", missing={}))
    return max(bpe.contents) + 1 if rows is None else rows


def _needed(folder: Path, bpe: BpeTokenizer, rows: int) -> set[int]:
    needed: set[int] = set()
    for name in _CONFIGS:
        needed |= needed_ids(read_object(Path(folder) / name, missing={}), rows, name)
    declared = {**_added_decoder(folder), **_added_encoder(folder)}
    for id_, (content, source) in declared.items():
        if bpe.contents.get(id_) != content:
            raise CheckpointError(
                f"{source} declares token {content!r} with id {id_}; tokenizer.json says {bpe.contents.get(id_)!r}",
                hint="save the tokenizer again with transformers so that its files agree",
            )
    return needed | {id_ for id_ in declared if id_ < rows}


def _added_decoder(folder: Path) -> dict[int, tuple[str, str]]:
    """``added_tokens_decoder`` of tokenizer_config.json: id -> content."""
    name = "tokenizer_config.json"
    entries = read_object(Path(folder) / name, missing={}).get("added_tokens_decoder") or {}
    if not isinstance(entries, dict):
        raise CheckpointError(f"{name}: added_tokens_decoder must be an object, got {type(entries).__name__}")
    declared = {}
    for key, entry in entries.items():
        content = entry.get("content") if isinstance(entry, dict) else entry
        if not key.isascii() or not key.isdecimal() or not isinstance(content, str):
            raise CheckpointError(f"{name}: added_tokens_decoder[{key!r}] must map an id to a token, got {entry!r}")
        declared[int(key)] = (content, name)
    return declared


def _added_encoder(folder: Path) -> dict[int, tuple[str, str]]:
    """added_tokens.json: content -> id."""
    name = "added_tokens.json"
    declared = {}
    for content, id_ in read_object(Path(folder) / name, missing={}).items():
        if not isinstance(id_, int) or isinstance(id_, bool):
            raise CheckpointError(f"{name}: {content!r} must have a token id, got {id_!r}")
        declared[id_] = (content, name)
    return declared


def _check_kept(kept: Sequence[int], bpe: BpeTokenizer, needed: set[int], rows: int) -> None:
    ids = set(kept)
    hint = "take the ids from choose_tokens(..., keep=needed_tokens(folder)) or close_tokens"
    if len(ids) != len(kept):
        raise UsageError("kept token ids repeat", hint=hint)
    if stray := [id_ for id_ in ids if not isinstance(id_, int) or isinstance(id_, bool) or not 0 <= id_ < rows]:
        raise UsageError(f"kept token id {stray[0]!r} is outside the vocabulary of {rows} rows", hint=hint)
    must = {id_ for id_ in bpe.always_kept() | needed if id_ < rows}
    if lacking := sorted(must - ids):
        raise UsageError(f"{len(lacking)} needed tokens are not kept, first {_show(bpe, lacking[0])}", hint=hint)
    if lacking := sorted(bpe.close(ids) - ids):
        raise UsageError(
            f"{len(lacking)} tokens that kept tokens are built from are not kept, first {_show(bpe, lacking[0])}",
            hint=hint,
        )


def _show(bpe: BpeTokenizer, id_: int) -> str:
    return f"{bpe.contents.get(id_)!r} (id {id_})"


def _number(kept: Sequence[int], bpe: BpeTokenizer, rows: int) -> tuple[list[int], dict[int, int]]:
    """Old id of each new row, and old -> new for these and for added tokens without a row, which stay without one."""
    ids, model = set(kept), set(bpe.vocab.values())
    empty = sorted(ids - set(bpe.contents))
    order = sorted(ids & model) + sorted((ids & set(bpe.added)) - model) + empty
    rowless = sorted(id_ for id_ in bpe.added if id_ >= rows)
    if rowless and (empty or not model.isdisjoint(rowless)):
        raise UsageError(
            f"added token {_show(bpe, rowless[0])} has no embedding row, while rows without a token are to be kept",
            hint="choose a size without rows that have no token",
        )
    return order, {old: new for new, old in enumerate(order + rowless)}


def _trimmed_tokenizer(raw: dict[str, Any], bpe: BpeTokenizer, mapping: Mapping[int, int]) -> dict[str, Any]:
    new = copy.deepcopy({key: value for key, value in raw.items() if key != "model"})
    new = {key: new.get(key) for key in raw}  # the parent's order of keys
    model = dict(raw["model"])
    ordered = sorted((mapping[id_], token) for token, id_ in bpe.vocab.items() if id_ in mapping)
    model["vocab"] = {token: id_ for id_, token in ordered}
    vocab = model["vocab"]
    kept = [all(part in vocab for part in (*pair, "".join(pair))) for pair in bpe.merges]
    model["merges"] = [merge for merge, stays in zip(raw["model"]["merges"], kept, strict=True) if stays]
    new["model"] = model
    for entry in new.get("added_tokens") or []:
        entry["id"] = mapping[entry["id"]]
    for processor in post_processors(new):
        for special in (processor.get("special_tokens") or {}).values():
            special["ids"] = [mapping[id_] for id_ in special["ids"]]
        for pair in (processor[key] for key in ("sep", "cls") if key in processor):
            pair[1] = mapping[pair[1]]
    if (padding := new.get("padding")) and "pad_id" in padding:
        padding["pad_id"] = mapping[padding["pad_id"]]
    load_library(new)
    return new


class _LeftBehindError(SecateurError):
    """This file cannot be rewritten; the message says why."""


def _rewrite_config(trim: _Trim, name: str) -> bytes:
    config = read_object(trim.folder / name)
    apply_edits(config, edited_fields(config, trim.mapping, trim.rows, name))
    if name == "tokenizer_config.json" and config.get("added_tokens_decoder"):
        entries = config["added_tokens_decoder"].items()
        config["added_tokens_decoder"] = {str(trim.mapping[int(key)]): entry for key, entry in entries}
    return _dump(config)


def _rewrite_added(trim: _Trim, name: str) -> bytes:
    return _dump({content: trim.mapping[id_] for content, id_ in read_object(trim.folder / name).items()})


def _rewrite_vocab(trim: _Trim, name: str) -> bytes:
    old = read_object(trim.folder / name)
    ids = {content: id_ for id_, content in trim.bpe.contents.items()}
    if any(ids.get(token) != id_ for token, id_ in old.items()) or not set(trim.bpe.vocab) <= set(old):
        raise _LeftBehindError("it disagrees with tokenizer.json, which carries everything")
    return _dump({token: trim.mapping[id_] for token, id_ in old.items() if id_ in trim.mapping})


def _rewrite_merges(trim: _Trim, name: str) -> bytes:
    try:
        lines = (trim.folder / name).read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {trim.folder / name}: {error}") from error
    head = [line for line in lines[:1] if line.startswith("#version")]
    if [line.rstrip("\r") for line in lines[len(head) :] if line] != [" ".join(pair) for pair in trim.bpe.merges]:
        raise _LeftBehindError("it disagrees with tokenizer.json, which carries everything")
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in trim.new["model"]["merges"])
    return "".join(f"{line}\n" for line in (*head, *merges)).encode()


def _copy(trim: _Trim, name: str) -> bytes:
    try:
        return (trim.folder / name).read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {trim.folder / name}: {error}") from error


_REWRITERS: dict[str, Callable[[_Trim, str], bytes]] = {
    "tokenizer_config.json": _rewrite_config,
    "generation_config.json": _rewrite_config,
    "added_tokens.json": _rewrite_added,
    "vocab.json": _rewrite_vocab,
    "merges.txt": _rewrite_merges,
    **dict.fromkeys(_VERBATIM, _copy),
}


def _left_behind(folder: Path) -> dict[str, str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return {name: reason for name in names for pattern, reason in _LEFT.items() if fnmatch(name, pattern)}


def _dump(value: Any) -> bytes:
    # A lone surrogate has no UTF-8; backslashreplace writes the very escape that JSON has for it.
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        try:
            (out / name).write_bytes(content)
        except OSError as error:
            raise CheckpointError(f"cannot write {out / name}: {error}") from error
