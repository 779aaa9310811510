"""Vocabulary trimming: closure, exact renumbering, exact decoding, consistent files, clear errors."""

from __future__ import annotations

import copy
import json
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from secateur.errors import CheckpointError, UsageError
from secateur.pruning.vocab import (
    choose_tokens,
    close_tokens,
    count_tokens,
    needed_tokens,
    trim_tokenizer,
    verify_trim,
)
from secateur.pruning.vocab_tokenizer import Pair, parse_bpe, run_bpe
from tests.prune.made import (
    CORPUS,
    HELD_OUT,
    QUICK,
    byte_fallback,
    byte_level,
    load,
    save,
    trimmed,
)

# ---------------------------------------------------------------- BPE itself, against plain references


def slow_bpe(symbols: list[int], ranks: dict[Pair, tuple[int, int]]) -> list[int]:
    """BPE by its definition: as long as a pair has a merge, merge the one of lowest rank, leftmost first."""
    symbols = list(symbols)
    while options := [(*ranks[pair], pos) for pos, pair in enumerate(pairwise(symbols)) if pair in ranks]:
        _, merged, pos = min(options, key=lambda option: (option[0], option[2]))
        symbols[pos : pos + 2] = [merged]
    return symbols


@st.composite
def random_bpe(draw: st.DrawFn) -> dict[str, Any]:
    """Any merges in any order over three letters, whole-word look-up or not: far wilder than a trained tokenizer."""
    vocab = {"<s>": 0, "a": 1, "b": 2, "c": 3}
    letters = ["a", "b", "c"]
    merges: list[list[str]] = []
    for _ in range(draw(st.integers(1, 14))):
        left, right = draw(st.sampled_from(letters)), draw(st.sampled_from(letters))
        if len(left + right) <= 8:
            vocab.setdefault(left + right, len(vocab))
            letters = sorted({*letters, left + right})
            merges.append([left, right])
    pre = draw(st.sampled_from([None, {"type": "WhitespaceSplit"}]))
    added = {"id": 0, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False}
    return {
        "version": "1.0",
        "added_tokens": [{**added, "normalized": False, "special": True}],
        "pre_tokenizer": pre,
        "model": {
            "type": "BPE",
            "ignore_merges": draw(st.booleans()),
            "vocab": vocab,
            "merges": draw(st.permutations(merges)),
        },
        "decoder": {"type": "Fuse"},
    }


words = st.text("abc", min_size=1, max_size=24)


@QUICK
@given(random_bpe(), words)
def test_bpe_equals_the_definition_and_the_library(raw: dict[str, Any], word: str) -> None:
    bpe = parse_bpe(raw)
    symbols = [bpe.vocab[char] for char in word]
    ours, _ = run_bpe(symbols, bpe.ranks)
    assert ours == slow_bpe(symbols, dict(bpe.ranks))
    plain = {**raw, "pre_tokenizer": None, "model": {**raw["model"], "ignore_merges": False}}
    assert ours == Tokenizer.from_str(json.dumps(plain)).encode(word, add_special_tokens=False).ids


@QUICK
@given(random_bpe(), words)
def test_a_token_is_built_in_every_word_as_it_is_built_alone(raw: dict[str, Any], word: str) -> None:
    """The ground of the closure: final tokens of any word are base symbols or have parts, parts included."""
    bpe = parse_bpe(raw)
    final, _ = run_bpe([bpe.vocab[char] for char in word], bpe.ranks)
    for id_ in bpe.close(final):
        assert len(bpe.contents[id_]) == 1 or id_ in bpe.parts


# ---------------------------------------------------------------- the choice


@QUICK
@given(random_bpe(), st.data())
def test_random_tokenizers_trim_exactly(
    tmp_path_factory: pytest.TempPathFactory, raw: dict[str, Any], data: st.DataObject
) -> None:
    """Any size, any counts: size met, deterministic, kept words keep their ids, every text decodes as before."""
    total = len(raw["model"]["vocab"])
    size = data.draw(st.integers(4, total))
    counts = data.draw(st.none() | st.dictionaries(st.integers(0, total - 1), st.integers(0, 9)))
    kept = choose_tokens(raw, size, counts=counts)
    assert kept == choose_tokens(copy.deepcopy(raw), size, counts=counts)
    assert len(kept) == size and kept == sorted(set(kept)) and {0, 1, 2, 3} <= set(kept)
    old, new, trim = trimmed(tmp_path_factory.mktemp("trim"), raw, kept)
    texts = data.draw(st.lists(st.text("abc ", max_size=20), max_size=6)) + list(raw["model"]["vocab"])
    check = verify_trim(old, new, trim, texts)
    assert check.failures == () and check.texts == len(texts)
    tokens = load(new)["model"]["vocab"]
    alive = set(parse_bpe(raw).parts)
    for id_ in alive & set(kept):  # every kept token that could be reached still is
        token = parse_bpe(raw).contents[id_]
        assert tokens[token] == trim.mapping[id_] and id_ in {trim.kept[i] for i in parse_bpe(load(new)).parts}


def test_every_size_is_met_and_verified(raw: dict[str, Any], tmp_path: Path) -> None:
    old = save(tmp_path / "old", raw)
    counts = count_tokens(old, CORPUS)
    total = 1 + max([*raw["model"]["vocab"].values(), *(token["id"] for token in raw["added_tokens"])])
    minimum = len(close_tokens(raw, []))
    for size in {minimum, minimum + 1, (minimum + total) // 2, total - 1, total}:
        for chosen in (choose_tokens(raw, size), choose_tokens(raw, size, counts=counts)):
            assert len(chosen) == size
            old, new, trim = trimmed(tmp_path, raw, chosen)
            assert len(trim.kept) == size and verify_trim(old, new, trim, CORPUS + HELD_OUT).failures == ()


def test_trimmed_vocabularies_decode_any_text(raw: dict[str, Any], tmp_path: Path) -> None:
    """At the smallest size of all, where everything falls back: characters in, the same characters out."""
    old, new, trim = trimmed(tmp_path, raw, close_tokens(raw, []))

    @QUICK
    @given(st.lists(st.text(max_size=30), max_size=5))
    def check(texts: list[str]) -> None:
        assert verify_trim(old, new, trim, texts).failures == ()

    check()
    before = Tokenizer.from_str(json.dumps(raw))
    encoded = [before.encode(text, add_special_tokens=False).ids for text in HELD_OUT]
    decoded = [before.decode(ids, skip_special_tokens=False) for ids in encoded]
    exact = sum(text == back for text, back in zip(HELD_OUT, decoded, strict=True))
    assert verify_trim(old, new, trim, HELD_OUT).exact_texts == exact >= 4  # U+2581 reads as a space, as ever


def test_full_size_changes_nothing(raw: dict[str, Any], tmp_path: Path) -> None:
    total = len(close_tokens(raw, range(len(raw["model"]["vocab"]))))
    _, new, trim = trimmed(tmp_path, raw, choose_tokens(raw, total))
    assert load(new) == raw and trim.kept == tuple(range(total)) and trim.config_edits == {}


def test_without_counts_a_trained_vocabulary_is_cut_to_a_prefix() -> None:
    raw = byte_level()
    end = len(raw["model"]["vocab"])
    assert choose_tokens(raw, 300) == [*range(298), end, end + 1]


def test_counts_keep_the_frequent_and_their_parts(tmp_path: Path) -> None:
    raw = byte_level()
    bpe = parse_bpe(raw)
    counts = count_tokens(save(tmp_path, raw), CORPUS[2:3])
    kept = set(choose_tokens(raw, 340, counts=counts))
    gone = set(bpe.contents) - kept
    by_count = sum(counts[id_] for id_ in gone)
    by_id = sum(counts[id_] for id_ in set(bpe.contents) - set(choose_tokens(raw, 340)))
    assert by_count < by_id
    needed_by = Counter(part for id_ in kept for part in bpe.parts.get(id_, ()))
    assert not gone & set(needed_by)


def test_counts_agree_with_the_library_and_ignore_templates(raw: dict[str, Any], tmp_path: Path) -> None:
    cut = {**raw, "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}}
    folder = save(tmp_path, cut)
    tokenizer = Tokenizer.from_str(json.dumps(raw))
    expected = Counter(id_ for text in CORPUS for id_ in tokenizer.encode(text, add_special_tokens=False).ids)
    assert count_tokens(folder, iter(CORPUS)) == expected


def test_rare_characters_fall_back_to_bytes_but_the_space_mark_stays() -> None:
    raw = byte_fallback()
    vocab = raw["model"]["vocab"]
    smallest = close_tokens(raw, [])
    assert vocab["▁"] in smallest and vocab["Z"] not in smallest and vocab["<0xE4>"] in smallest
    undecodable = {**raw, "decoder": {"type": "Fuse"}}  # bytes would come back as "<0xE4>"
    assert vocab["Z"] in close_tokens(undecodable, [])


def test_dead_tokens_go_first() -> None:
    raw = byte_level()
    vocab = raw["model"]["vocab"]
    merged = "".join(raw["model"]["merges"][5])
    raw["model"]["merges"] = [pair for pair in raw["model"]["merges"] if merged not in (*pair, "".join(pair))]
    bpe = parse_bpe(raw)
    dead = {id_ for id_ in bpe.contents if bpe.is_dead(id_)}
    assert vocab[merged] in dead
    assert dead.isdisjoint(choose_tokens(raw, len(bpe.contents) - len(dead)))


def test_closure_under_some_merge_is_not_enough(tmp_path: Path) -> None:
    """Why the closure follows BPE: abc is built from a + bc, though ab + c is a merge, too."""
    vocab = {token: id_ for id_, token in enumerate(["a", "b", "c", "d", "bc", "abc", "cd", "ab"])}
    merges = [["b", "c"], ["a", "bc"], ["c", "d"], ["a", "b"], ["ab", "c"]]
    raw = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": vocab, "merges": merges}}
    raw["decoder"] = {"type": "Fuse"}
    tempting = [vocab[token] for token in ("a", "b", "c", "d", "ab", "abc", "cd")]
    naive = copy.deepcopy(raw)
    naive["model"]["vocab"] = {token: id_ for token, id_ in vocab.items() if id_ in tempting}
    naive["model"]["merges"] = merges[2:]
    encode = [Tokenizer.from_str(json.dumps(t)).encode("abcd").tokens for t in (raw, naive)]
    assert encode == [["abc", "d"], ["ab", "cd"]]
    with pytest.raises(UsageError, match="'bc'"):
        trimmed(tmp_path, raw, tempting)
    assert vocab["bc"] in close_tokens(raw, [vocab["abc"]])


# ---------------------------------------------------------------- rows that are no tokens, tokens that have no row


def test_rows_without_a_token_stay_only_to_reach_a_size(tmp_path: Path) -> None:
    raw, others = byte_level(), {"config": {"vocab_size": 448, "pad_token_id": 445}}
    old = save(tmp_path / "old", raw, **others)
    assert needed_tokens(old) == {445}
    assert choose_tokens(raw, 440, rows=448) == list(range(440))
    kept = choose_tokens(raw, 320, rows=448, keep=needed_tokens(old))
    assert len(kept) == 320 and kept[-1] == 445 and max(kept[:-1]) < 422
    *_, trim = trimmed(tmp_path, raw, kept, **others)
    assert trim.mapping[445] == 319 == trim.config_edits["pad_token_id"]


def test_added_tokens_without_a_row_stay_without_one(tmp_path: Path) -> None:
    raw, others = byte_level(), {"config": {"vocab_size": 421}}
    kept = choose_tokens(raw, 300, rows=421)
    _, new, trim = trimmed(tmp_path, raw, kept, **others)
    assert len(trim.kept) == 300 and 421 not in trim.kept
    assert load(new)["added_tokens"][-1] == {**raw["added_tokens"][-1], "id": 300}
    with pytest.raises(CheckpointError, match="300 rows"):
        choose_tokens(raw, 290, rows=300)


def test_holes_in_the_ids_close(tmp_path: Path) -> None:
    raw = byte_level()
    raw["added_tokens"] = raw["added_tokens"][:1]
    raw["post_processor"] = None
    vocab = raw["model"]["vocab"]
    raw["model"]["vocab"] = {token: id_ + 10 * (id_ > 300) for token, id_ in vocab.items()}
    kept = choose_tokens(raw, 380)
    old, new, trim = trimmed(tmp_path, raw, kept)
    assert sorted(load(new)["model"]["vocab"].values()) == list(range(380))
    assert verify_trim(old, new, trim, CORPUS).failures == ()


# ---------------------------------------------------------------- real tokenizers


def real_tokenizers() -> list[Any]:
    root = os.environ.get("SECATEUR_MODELS")
    if not root:
        skip = pytest.mark.skip(reason="SECATEUR_MODELS is unset: name a folder of checkpoints to try their tokenizers")
        return [pytest.param(None, marks=skip, id="unset")]
    return [pytest.param(path.parent, id=path.parent.name) for path in sorted(Path(root).glob("*/tokenizer.json"))]


@pytest.mark.parametrize("folder", real_tokenizers())
def test_real_tokenizers_trim_exactly(folder: Path, tmp_path: Path) -> None:
    raw, needed = load(folder), needed_tokens(folder)
    total, minimum = len(raw["model"]["vocab"]), len(close_tokens(raw, needed))
    counts = count_tokens(folder, CORPUS)
    for size in {minimum, (minimum + total) // 2, total - 1}:
        for given_counts in (None, counts):
            trim = trim_tokenizer(folder, choose_tokens(raw, size, counts=given_counts, keep=needed), tmp_path)
            check = verify_trim(folder, tmp_path, trim, CORPUS + HELD_OUT)
            assert check.failures == () and len(trim.kept) == size == len(AutoTokenizer.from_pretrained(tmp_path))
