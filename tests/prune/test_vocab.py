"""Vocabulary trimming: closure, exact renumbering, exact decoding, consistent files, clear errors."""

from __future__ import annotations

import copy
import json
import os
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from secateur.errors import BudgetError, CheckpointError, ConfigError, SecateurError, UsageError
from secateur.prune.vocab import (
    VocabTrim,
    choose_tokens,
    close_tokens,
    count_tokens,
    needed_tokens,
    trim_tokenizer,
    verify_trim,
)
from secateur.prune.vocab_tokenizer import BYTE_TOKENS, Pair, byte_level_alphabet, parse_bpe, run_bpe

CORPUS = [
    "The secateurs cut the dead wood; the living wood heals. Cutting is easy, healing takes time.",
    "A rose pruned in the cold of winter flowers in the warmth of summer, and the gardener counts 12 buds.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "def prune(tree):\n    for branch in tree:\n        if branch.dead:\n            branch.cut()\n",
    "The theory of the thing is that there, then, they and them share their beginnings.",
]
HELD_OUT = [
    "The gardener's theory: cut then heal.\n\n\tNothing else!",
    "naïve façade — 中文 text, 🌹🌹 and ▁ underscores",
    "  two  spaces <|end|> and a special<|end|>inside </s> <s>",
    "",
    "\x00\x7f\xa0 control",
    "unseen Ünïcödé ﬁ ligature İstanbul",
]
QUICK = settings(
    deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


# ---------------------------------------------------------------- tokenizers under test


def byte_level(size: int = 420, *, ignore_merges: bool = False) -> dict[str, Any]:
    """GPT-2 / Llama-3 style; one special token in the model vocabulary, two added beyond it."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(byte_level_alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(["<|start|>", "<|pad|>"])
    start = tokenizer.token_to_id("<|start|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|start|> $A", pair="<|start|> $A $B", special_tokens=[("<|start|>", start)]
    )
    return json.loads(tokenizer.to_str())


def byte_fallback(size: int = 480) -> dict[str, Any]:
    """Llama-2 / Gemma style: U+2581 for spaces, byte fallback, every split of a token listed as a merge."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    specials = ["<unk>", "<s>", "</s>", *BYTE_TOKENS]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=specials, max_token_length=12)
    tokenizer.train_from_iterator([part for text in CORPUS for part in text.split(",")], trainer)
    raw = json.loads(tokenizer.to_str())
    raw["added_tokens"] = raw["added_tokens"][:3]
    raw["model"]["merges"] = every_split(raw["model"]["vocab"])
    raw["post_processor"] = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}
    raw["post_processor"] |= {"trim_offsets": True, "add_prefix_space": False}
    return raw


def every_split(vocab: dict[str, int]) -> list[list[str]]:
    """Merges as converters from SentencePiece and tiktoken write them: tokens by id, each with all its splits."""
    ordered = sorted(vocab, key=vocab.__getitem__)
    splits = ((token[:cut], token[cut:]) for token in ordered for cut in range(1, len(token)))
    return [[left, right] for left, right in splits if left in vocab and right in vocab]


STYLES = {
    "byte-level": byte_level,
    "ignore-merges": lambda: tiktoken_like(byte_level(ignore_merges=True)),
    "byte-fallback": byte_fallback,
}


def tiktoken_like(raw: dict[str, Any]) -> dict[str, Any]:
    """Every split listed, and one whole-word token that no merge builds."""
    vocab = raw["model"]["vocab"]
    raw["model"]["merges"] = every_split(vocab)
    beyond = [token for token in raw["added_tokens"] if token["id"] >= len(vocab)]
    assert "Nothing" not in vocab
    raw["model"]["merges"] = [pair for pair in raw["model"]["merges"] if "".join(pair) != "Nothing"]
    vocab["Nothing"] = len(vocab)
    for token in beyond:
        token["id"] += 1
    for special in raw["post_processor"]["special_tokens"].values():
        special["ids"] = [id_ + 1 for id_ in special["ids"]]
    return raw


@pytest.fixture(scope="module", params=STYLES)
def raw(request: pytest.FixtureRequest) -> dict[str, Any]:
    return STYLES[request.param]()


def save(folder: Path, raw: dict[str, Any], **others: Any) -> Path:
    """A checkpoint folder with a tokenizer.json and other JSON files, named by their stem."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in {"tokenizer": raw, **others}.items():
        (folder / f"{name}.json").write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return folder


def trimmed(tmp: Path, raw: dict[str, Any], kept: list[int], **others: Any) -> tuple[Path, Path, VocabTrim]:
    old, new = save(tmp / "old", raw, **others), tmp / "new"
    new.mkdir(exist_ok=True)
    return old, new, trim_tokenizer(old, kept, new)


def load(folder: Path, name: str = "tokenizer") -> Any:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


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


# ---------------------------------------------------------------- every file consistent


def full_folder(tmp: Path) -> tuple[Path, Path, VocabTrim, dict[str, Any]]:
    raw = byte_level()
    raw["padding"] = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None}
    raw["padding"] |= {"pad_id": 421, "pad_type_id": 0, "pad_token": "<|pad|>"}
    vocab = raw["model"]["vocab"]
    config = {
        "vocab_size": 422,
        "bos_token_id": 420,
        "eos_token_id": [0, 421],
        "pad_token_id": -1,
        "sep_token_id": 50256,
        "text_config": {"eos_token_id": 420},
        "vision_config": {"pad_token_id": 419},
    }
    generation = {
        "bos_token_id": 420,
        "eos_token_id": [421, 0],
        "decoder_start_token_id": None,
        "suppress_tokens": [5, 419, 420],
        "begin_suppress_tokens": [-1],
        "bad_words_ids": [[420], [419, 3], [7, 421]],
        "forced_decoder_ids": [[1, 420], [2, None]],
        "sequence_bias": [[[420, 3], -1.5], [[419], 2.0]],
    }
    decoder = {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in raw["added_tokens"]}
    old = save(
        tmp / "old",
        raw,
        config=config,
        generation_config=generation,
        tokenizer_config={
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|start|>",
            "pad_token": "<|pad|>",
            "eos_token": "<|end|>",
            "added_tokens_decoder": decoder,
        },
        special_tokens_map={"bos_token": "<|start|>"},
        added_tokens={"<|start|>": 420, "<|pad|>": 421},
        vocab=vocab,
    )
    lines = ["#version: 0.2", *(" ".join(pair) for pair in raw["model"]["merges"])]
    (old / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (old / "tokenizer.model").write_bytes(b"\x0a\x00")
    new = tmp / "new"
    new.mkdir()
    kept = choose_tokens(raw, 300, keep=needed_tokens(old))
    return old, new, trim_tokenizer(old, kept, new), raw


def test_all_files_are_renumbered(tmp_path: Path) -> None:
    old, new, trim, _ = full_folder(tmp_path)
    assert trim.kept == (*range(298), 420, 421)
    assert trim.config_edits == {"bos_token_id": 298, "eos_token_id": [0, 299], "text_config.eos_token_id": 298}
    assert set(trim.left) == {"tokenizer.model"} and "config.json" not in trim.files
    assert set(trim.files) == {path.name for path in new.iterdir()}
    made = load(new)
    assert made["padding"]["pad_id"] == 299
    assert made["post_processor"]["special_tokens"]["<|start|>"]["ids"] == [298]
    assert [token["id"] for token in made["added_tokens"]] == [0, 298, 299]
    assert load(new, "generation_config") == {
        "bos_token_id": 298,
        "eos_token_id": [299, 0],
        "decoder_start_token_id": None,
        "suppress_tokens": [5, 298],
        "begin_suppress_tokens": [-1],
        "bad_words_ids": [[298], [7, 299]],
        "forced_decoder_ids": [[1, 298], [2, None]],
        "sequence_bias": [[[298, 3], -1.5]],
    }
    assert list(load(new, "tokenizer_config")["added_tokens_decoder"]) == ["0", "298", "299"]
    assert load(new, "added_tokens") == {"<|start|>": 298, "<|pad|>": 299}
    assert (new / "special_tokens_map.json").read_bytes() == (old / "special_tokens_map.json").read_bytes()
    assert load(new, "vocab") == made["model"]["vocab"]
    slow = models.BPE.from_file(str(new / "vocab.json"), str(new / "merges.txt"))
    fast = Tokenizer.from_file(str(new / "tokenizer.json"))
    assert [token.id for token in slow.tokenize("thethere")] == fast.encode("thethere", add_special_tokens=False).ids


def test_template_ids_of_roberta_and_bert_processors_move(tmp_path: Path) -> None:
    raw = byte_level()
    roberta = {"type": "RobertaProcessing", "sep": ["<|pad|>", 421], "cls": ["<|start|>", 420]}
    bert = {"type": "BertProcessing", "sep": ["<|end|>", 0], "cls": ["<|start|>", 420]}
    raw["post_processor"] = {"type": "Sequence", "processors": [roberta, {**bert}]}
    roberta |= {"trim_offsets": True, "add_prefix_space": False}
    _, new, _ = trimmed(tmp_path, raw, choose_tokens(raw, 300))
    first, second = load(new)["post_processor"]["processors"]
    assert (first["sep"], first["cls"]) == (["<|pad|>", 299], ["<|start|>", 298])
    assert (second["sep"], second["cls"]) == (["<|end|>", 0], ["<|start|>", 298])


def test_vocab_and_merges_that_disagree_are_left_behind(tmp_path: Path) -> None:
    raw = byte_level()
    old = save(tmp_path / "old", raw, vocab={"the": 1})
    (old / "merges.txt").write_text("t h\n")
    _, new, trim = trimmed(tmp_path, raw, choose_tokens(raw, 300))
    assert set(trim.left) == {"vocab.json", "merges.txt"} and all("disagrees" in why for why in trim.left.values())
    assert {path.name for path in new.iterdir()} == {"tokenizer.json"}


def test_legacy_merges_stay_legacy(tmp_path: Path) -> None:
    raw = byte_level()
    raw["model"]["merges"] = [" ".join(pair) for pair in raw["model"]["merges"]]
    old, new, trim = trimmed(tmp_path, raw, choose_tokens(raw, 350))
    assert all(isinstance(merge, str) for merge in load(new)["model"]["merges"])
    assert verify_trim(old, new, trim, CORPUS).failures == ()


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend", "GPT2Tokenizer", "LlamaTokenizer"])
def test_transformers_load_the_result(name: str, tmp_path: Path) -> None:
    fallback = name == "LlamaTokenizer"
    raw = byte_fallback() if fallback else byte_level()
    specials = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    if not fallback:
        specials = {"bos_token": "<|start|>", "eos_token": "<|end|>", "unk_token": "<|end|>", "pad_token": "<|pad|>"}
    others = {"tokenizer_config": {"tokenizer_class": name, **specials}, "config": {"model_type": "llama"}}
    old, new, trim = trimmed(tmp_path, raw, choose_tokens(raw, 330), **others)
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (old, new))
    assert len(after) == 330
    for special in specials:
        assert getattr(after, f"{special}_id") == trim.mapping[getattr(before, f"{special}_id")]
    for text in CORPUS:
        ids = after(text, add_special_tokens=False).input_ids
        assert after.decode(ids) == before.decode(before(text, add_special_tokens=False).input_ids)
        old_ids = before(text).input_ids
        if all(id_ in trim.mapping for id_ in old_ids):
            assert after(text).input_ids == [trim.mapping[id_] for id_ in old_ids]
    assert len(PreTrainedTokenizerFast(tokenizer_file=str(new / "tokenizer.json"))) == 330


# ---------------------------------------------------------------- the check can fail


def test_verify_finds_a_wrong_trim(raw: dict[str, Any], tmp_path: Path) -> None:
    old, new, trim = trimmed(tmp_path, raw, choose_tokens(raw, 400))
    made = load(new)
    vocab = made["model"]["vocab"]
    vocab["e"], vocab["t"] = vocab["t"], vocab["e"]
    save(new, made)
    assert not verify_trim(old, new, trim, ["e t et te"]).ok
    vocab["e"], vocab["t"] = vocab["t"], vocab["e"]
    made["model"]["merges"] = made["model"]["merges"][: len(made["model"]["merges"]) // 2]
    save(new, made)
    assert not verify_trim(old, new, trim, " ".join(CORPUS).split()).ok


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
