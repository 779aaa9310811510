"""What cannot be trimmed is refused in words: requests, models, sidecars, mutated and truncated files."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.errors import BudgetError, CheckpointError, ConfigError, SecateurError, UsageError
from secateur.pruning.vocab import (
    choose_tokens,
    count_tokens,
    needed_tokens,
    trim_tokenizer,
    verify_trim,
)
from tests.prune.made import (
    CORPUS,
    QUICK,
    STYLES,
    byte_fallback,
    byte_level,
    full_folder,
    load,
    trimmed,
)

# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("size", "options", "error", "match"),
    [
        (258, {}, BudgetError, "below the minimum of 259: 3 added and special tokens, 256 base symbols"),
        (259, {"keep": [419]}, BudgetError, "below the minimum"),
        (423, {}, BudgetError, "above the current 422 rows"),
        (0, {}, UsageError, "positive integer"),
        (True, {}, UsageError, "positive integer"),
        (300, {"keep": [422]}, UsageError, "422 is outside"),
        (300, {"keep": [-1]}, UsageError, "-1 is outside"),
        (300, {"counts": {500: 1}}, UsageError, "500 is outside"),
        (300, {"counts": {5: -1}}, UsageError, "negative"),
    ],
)
def test_requests_that_cannot_be_met(size: int, options: dict[str, Any], error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        choose_tokens(byte_level(), size, **options)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"type": "Unigram"}, UsageError, "'Unigram' model; only BPE"),
        ({"type": "WordPiece"}, UsageError, "'WordPiece' model"),
        ({"end_of_word_suffix": "</w>"}, UsageError, "end_of_word_suffix"),
        ({"vocab": {}}, CheckpointError, "empty"),
        ({"vocab": {"a": 0, "b": 0}, "merges": []}, CheckpointError, "share id 0"),
        ({"vocab": {"a": True}, "merges": []}, CheckpointError, "token id"),
        ({"merges": [["zz", "t"]]}, CheckpointError, "needs token 'zz'"),
        ({"merges": ["t h e"]}, CheckpointError, "two tokens"),
        ({"merges": {}}, CheckpointError, "must be a list"),
    ],
)
def test_models_that_cannot_be_trimmed(change: dict[str, Any], error: type, match: str) -> None:
    raw = byte_level()
    raw["model"] = {**raw["model"], **change}
    with pytest.raises(error, match=match):
        choose_tokens(raw, 300)


@pytest.mark.parametrize(
    "decoder",
    [
        None,
        {"type": "CTC"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        {"type": "Sequence", "decoders": []},
        {"type": "Sequence", "decoders": [{"type": "WordPiece"}, {"type": "Fuse"}]},
        {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "th"}, "content": "x"}]},
    ],
)
def test_decoders_that_depend_on_the_cut_are_refused(decoder: Any) -> None:
    with pytest.raises(UsageError, match="cut"):
        choose_tokens({**byte_level(), "decoder": decoder}, 300)


def test_byte_tokens_in_merges_are_refused() -> None:
    raw = byte_fallback()
    raw["model"]["vocab"]["<0xE4><0xB8>"] = len(raw["model"]["vocab"])
    raw["model"]["merges"].append(["<0xE4>", "<0xB8>"])
    with pytest.raises(UsageError, match="joins a byte"):
        choose_tokens(raw, 400)


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"added_tokens": {"<new>": 7}}, "declares token '<new>' with id 7"),
        ({"tokenizer_config": {"added_tokens_decoder": {"x": {"content": "<new>"}}}}, "must map an id"),
        ({"generation_config": {"eos_token_id": "2"}}, "must hold token ids"),
        ({"config": {"vocab_size": "large"}}, "positive integer"),
        ({"generation_config": [1]}, "must hold a JSON object"),
        ({"generation_config": {"eos_token_id": 419}}, "needed tokens are not kept"),
        ({"generation_config": {"suppress_tokens": 3}}, "list of token ids"),
        ({"generation_config": {"bad_words_ids": [3]}}, "list of token ids"),
    ],
)
def test_sidecars_that_disagree(files: dict[str, Any], match: str, tmp_path: Path) -> None:
    raw = byte_level()
    with pytest.raises((CheckpointError, ConfigError, UsageError), match=match):
        trimmed(tmp_path, raw, choose_tokens(raw, 300), **files)
    assert list((tmp_path / "new").iterdir()) == []


def test_kept_ids_are_checked(tmp_path: Path) -> None:
    raw = byte_level()
    kept = choose_tokens(raw, 300)
    for wrong, match in (
        (kept[1:], "needed tokens"),
        (kept[:-1], "needed tokens"),
        ([*kept, kept[0]], "repeat"),
        ([*kept, 999], "outside"),
        ([*kept, 419], "built from"),
    ):
        with pytest.raises(UsageError, match=match):
            trimmed(tmp_path, raw, wrong)
    with pytest.raises(UsageError, match="must exist and differ"):
        trim_tokenizer(tmp_path / "old", kept, tmp_path / "old")
    with pytest.raises(CheckpointError, match="fast tokenizer"):
        trim_tokenizer(tmp_path / "new", kept, tmp_path / "old")


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of a JSON tree; long containers are sampled at both ends."""
    yield path
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    for key in keys[:4] + keys[4:][-4:]:
        yield from leaves(tree[key], (*path, key))


JUNK = [None, True, -1, 0, 3, 1e400, 2**40, "", "x", "\ud800", "the", [], [[]], ["t"], {}, {"type": "BPE"}, [1, 2]]


def mutated(tree: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """A copy with the value at ``path`` deleted, renamed or replaced."""
    tree = copy.deepcopy(tree)
    holder = tree
    for key in path[:-1]:
        holder = holder[key]
    if junk == "delete":
        del holder[path[-1]]
    elif junk == "rename" and isinstance(holder, dict):
        holder["renamed"] = holder.pop(path[-1])
    else:
        holder[path[-1]] = junk
    return tree


def trim_or_explain(old: Path, new: Path) -> None:
    """The whole road: a right trim, or an error a person can act on; anything else is a defect."""
    new.mkdir(exist_ok=True)
    try:
        kept = choose_tokens(load(old), 330, keep=needed_tokens(old))
        trim = trim_tokenizer(old, kept, new)
        assert verify_trim(old, new, trim, CORPUS[:2]).failures == ()
        count_tokens(new, CORPUS[:2])
    except SecateurError as error:
        assert error.message


@pytest.mark.parametrize("style", STYLES)
def test_mutated_tokenizers_end_in_a_clear_error_or_a_right_trim(style: str, tmp_path: Path) -> None:
    raw = STYLES[style]()
    old = tmp_path / "old"
    old.mkdir()

    @settings(QUICK, max_examples=60)
    @given(st.sampled_from([path for path in leaves(raw) if path]), st.sampled_from([*JUNK, "delete", "rename"]))
    def check(path: tuple[Any, ...], junk: Any) -> None:
        (old / "tokenizer.json").write_text(json.dumps(mutated(raw, path, junk)), encoding="utf-8")
        trim_or_explain(old, tmp_path / "new")

    check()


def test_mutated_sidecars_end_in_a_clear_error_or_a_right_trim(tmp_path: Path) -> None:
    old, new, *_ = full_folder(tmp_path)
    names = ["config", "generation_config", "tokenizer_config", "added_tokens", "vocab"]
    trees = {name: load(old, name) for name in names}
    places = [(name, path) for name in names for path in leaves(trees[name]) if path]

    @settings(QUICK, max_examples=60)
    @given(st.sampled_from(places), st.sampled_from([*JUNK, "delete", "rename"]))
    def check(place: tuple[str, tuple[Any, ...]], junk: Any) -> None:
        name, path = place
        (old / f"{name}.json").write_text(json.dumps(mutated(trees[name], path, junk)), encoding="utf-8")
        trim_or_explain(old, new)
        (old / f"{name}.json").write_text(json.dumps(trees[name]), encoding="utf-8")

    check()


@pytest.mark.parametrize("style", STYLES)
def test_truncated_files_end_in_a_clear_error(style: str, tmp_path: Path) -> None:
    content = json.dumps(STYLES[style]()).encode()
    for share in range(0, 100, 5):
        (tmp_path / "tokenizer.json").write_bytes(content[: len(content) * share // 100])
        with pytest.raises(CheckpointError, match=r"cannot read .*tokenizer\.json"):
            count_tokens(tmp_path, ["x"])
    for bad in (b"\xff\xfe", b"[" * 100_000, b"[]", b"NaN"):
        (tmp_path / "tokenizer.json").write_bytes(bad)
        with pytest.raises(CheckpointError):
            needed_tokens(tmp_path)
