"""A byte-pair tokenizer read as data: checked once, with the way BPE really builds every token.

Glossary: a *base* symbol is a token made of one character (or one byte); a *merge* joins two tokens into a third; the
*parts* of a token are the two tokens its last merge joins when BPE runs on the token's own characters.

Why the parts are well defined. While a token t stands somewhere in a word, every merge inside its span was chosen
among pairs inside that span (a merge across the border would have destroyed t), and the order (rank, then position) of
those pairs does not depend on the rest of the word. So t is built in every word exactly as it is built alone, and a
token that BPE does not build from its own characters is built nowhere. The algorithm mirrored here is the one of the
``tokenizers`` library (models/bpe: a heap over (rank, position)), after Sennrich et al., arXiv 1508.07909.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Any

from secateur.errors import CheckpointError, UsageError

Pair = tuple[int, int]
Ranks = Mapping[Pair, tuple[int, int]]  # pair of ids -> (rank, id of the merged token)

BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
# Decoders that see the characters of a text, not how it is cut into tokens.
_JOINING = ("ByteLevel", "ByteFallback", "Fuse", "Metaspace")
_RESAVE = "save the tokenizer again with transformers (AutoTokenizer.from_pretrained(...).save_pretrained(...))"


@dataclass(frozen=True)
class BpeTokenizer:
    """The parts of a tokenizer.json that decide which ids exist and how text becomes ids."""

    vocab: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    ranks: Ranks
    added: Mapping[int, str]  # added and special tokens, inside and beyond ``vocab``
    referenced: frozenset[int]  # ids named by the post-processor, the padding and the unknown token
    lossless: frozenset[int]  # ids without which some text could no longer be written
    ignore_merges: bool

    @cached_property
    def contents(self) -> dict[int, str]:
        """Token text of every id, model vocabulary and added tokens together."""
        return {id_: token for token, id_ in self.vocab.items()} | dict(self.added)

    @cached_property
    def parts(self) -> dict[int, Pair]:
        """The two parts of every token that merges can build. Base symbols and whole-word tokens have no entry."""
        found: dict[int, Pair] = {}
        for token, id_ in self.vocab.items():
            symbols = [self.vocab.get(char, -1) for char in token]
            if len(symbols) < 2 or -1 in symbols:
                continue
            built, last = run_bpe(symbols, self.ranks)
            if built == [id_] and last is not None:
                found[id_] = last
        return found

    def is_dead(self, id_: int) -> bool:
        """True for a token no text can produce: neither a base symbol, nor built by merges, looked up or added."""
        token = self.contents[id_]
        return len(token) > 1 and not (self.ignore_merges or id_ in self.parts or id_ in self.added)

    def always_kept(self) -> frozenset[int]:
        """Ids every trimmed vocabulary needs, closed under parts."""
        return frozenset(self.close(self.lossless | self.referenced | set(self.added)))

    def check_rows(self, rows: int) -> None:
        """Only added tokens may lie beyond the embedding (Gemma 3's image token does); then no model reads them."""
        if beyond := sorted(set(self.vocab.values()) - set(range(rows)) - set(self.added)):
            raise CheckpointError(
                f"tokenizer.json: token {self.contents[beyond[0]]!r} has id {beyond[0]}, "
                f"but the embedding has {rows} rows",
                hint="tokenizer and model do not belong together",
            )

    def close(self, ids: Collection[int]) -> set[int]:
        """``ids`` and, recursively, the parts BPE builds them from."""
        closed, stack = set(), list(ids)
        while stack:
            id_ = stack.pop()
            if id_ not in closed:
                closed.add(id_)
                stack.extend(self.parts.get(id_, ()))
        return closed


def run_bpe(symbols: Sequence[int], ranks: Ranks) -> tuple[list[int], Pair | None]:
    """Merge ``symbols`` as BPE does, lowest (rank, position) first; also return the last pair merged. O(n log n)."""
    tokens, end = list(symbols), len(symbols)
    after = list(range(1, end + 1))
    before = list(range(-1, end - 1))
    heap = [(*ranks[pair], pos) for pos, pair in enumerate(pairwise(tokens)) if pair in ranks]
    heap = [(rank, pos, merged) for rank, merged, pos in heap]
    heapify(heap)
    last: Pair | None = None
    while heap:
        _, pos, merged = heappop(heap)
        right = after[pos]
        if tokens[pos] < 0 or right >= end:
            continue
        pair = (tokens[pos], tokens[right])
        if pair not in ranks or ranks[pair][1] != merged:
            continue  # the entry is stale: its pair was merged away meanwhile
        last = pair
        tokens[pos], tokens[right] = merged, -1
        after[pos] = after[right]
        if after[pos] < end:
            before[after[pos]] = pos
        for left in (before[pos], pos):
            if left >= 0 and after[left] < end and (hit := ranks.get((tokens[left], tokens[after[left]]))):
                heappush(heap, (hit[0], left, hit[1]))
    return [token for token in tokens if token >= 0], last


def parse_bpe(tokenizer: Mapping[str, Any]) -> BpeTokenizer:
    """Check a tokenizer.json and read it. ``CheckpointError`` for malformed ones, ``UsageError`` for other models."""
    model = _expect(tokenizer, "model", dict, "tokenizer.json")
    _refuse_other_models(model)
    _refuse_other_decoders(tokenizer.get("decoder"))
    vocab = _parse_vocab(model)
    merges = _parse_merges(model)
    ranks = _rank(merges, vocab)
    added = _parse_added(tokenizer, vocab)
    known = set(vocab.values()) | set(added)
    unknown = _optional(model, "unk_token", str, "model")
    stand_ins = {unknown} & set(vocab)
    _refuse_stand_in_merges(merges, stand_ins | (set(BYTE_TOKENS) if model.get("byte_fallback") else set()))
    referenced = set(referenced_ids(tokenizer)) | {vocab[token] for token in stand_ins}
    if stray := sorted(referenced - known):
        raise CheckpointError(f"tokenizer.json: the post-processor or padding names ids without a token: {stray[:5]}")
    return BpeTokenizer(
        vocab=vocab,
        merges=tuple(merges),
        ranks=ranks,
        added=added,
        referenced=frozenset(referenced),
        lossless=frozenset(_lossless_ids(tokenizer, model, vocab)),
        ignore_merges=bool(model.get("ignore_merges")),
    )


def referenced_ids(tokenizer: Mapping[str, Any]) -> Iterator[int]:
    """Ids written in the post-processor (template, BERT and RoBERTa processors, also in a sequence) and the padding."""
    for processor in post_processors(tokenizer):
        for special in _expect(processor, "special_tokens", dict, "post_processor", default={}).values():
            ids = special.get("ids") if isinstance(special, dict) else None
            if not isinstance(ids, list):
                raise CheckpointError(f"tokenizer.json: post_processor special token {special!r} has no list of ids")
            yield from (_check_id(id_, "post_processor") for id_ in ids)
        for pair in (processor[key] for key in ("sep", "cls") if key in processor):
            if not isinstance(pair, list) or len(pair) != 2:
                raise CheckpointError(f"tokenizer.json: post_processor expected [token, id], got {pair!r}")
            yield _check_id(pair[1], "post_processor")
    padding = _optional(tokenizer, "padding", dict, "tokenizer.json")
    if padding is not None and "pad_id" in padding:
        yield _check_id(padding["pad_id"], "padding.pad_id")


def post_processors(tokenizer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The single post-processors of a tokenizer.json."""
    return _leaves(tokenizer.get("post_processor"), "post_processor", "processors")


def _leaves(stage: Any, place: str, members: str) -> Iterator[dict[str, Any]]:
    """A post-processor or decoder itself, or the members of a (nested) sequence."""
    if stage is None:
        return
    if not isinstance(stage, dict):
        raise CheckpointError(f"tokenizer.json: {place} must be an object, got {type(stage).__name__}")
    if stage.get("type") == "Sequence":
        for member in _expect(stage, members, list, place):
            yield from _leaves(member, place, members)
    else:
        yield stage


def _refuse_other_models(model: Mapping[str, Any]) -> None:
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise UsageError(
            f"tokenizer.json has a {kind!r} model; only BPE vocabularies can be trimmed",
            hint="only BPE merges say how text falls back to smaller tokens; a Unigram or WordPiece vocabulary would "
            "segment kept words differently once its neighbours are gone. Keep the vocabulary as it is",
        )
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise UsageError(
                f"tokenizer.json: BPE with {key} = {model[key]!r} cannot be trimmed",
                hint="supported are byte-level BPE and BPE with byte fallback, without prefixes or suffixes",
            )


def _refuse_other_decoders(decoder: Any) -> None:
    """Refuse decoders under which a text reads differently once it is cut into other tokens."""
    steps = list(_leaves(decoder, "decoder", "decoders"))
    fused = False
    for step in steps:
        kind, pattern = step.get("type"), step.get("pattern")
        one_char = isinstance(pattern, dict) and len(str(pattern.get("String", ""))) == 1
        if not (kind in _JOINING or (kind == "Replace" and one_char) or (kind in ("Replace", "Strip") and fused)):
            raise UsageError(
                f"tokenizer.json: decoder {kind!r} depends on how a text is cut into tokens",
                hint=f"supported are {', '.join(_JOINING)}, Replace of one character, and after Fuse Replace and Strip",
            )
        fused = fused or kind == "Fuse"
    if not steps:
        raise UsageError(
            "tokenizer.json has no decoder, so decoding puts a space between tokens and depends on how a text is cut",
            hint="give the tokenizer the decoder that fits its pre-tokenizer, such as ByteLevel",
        )


def _parse_vocab(model: Mapping[str, Any]) -> dict[str, int]:
    vocab: dict[str, int] = _expect(model, "vocab", dict, "model")
    if not vocab:
        raise CheckpointError("tokenizer.json: model.vocab is empty")
    for token, id_ in vocab.items():
        _check_id(id_, f"model.vocab[{token!r}]")
    if len(set(vocab.values())) != len(vocab):
        seen: dict[int, str] = {}
        for token, id_ in vocab.items():
            if (other := seen.setdefault(id_, token)) != token:
                raise CheckpointError(f"tokenizer.json: tokens {other!r} and {token!r} share id {id_}", hint=_RESAVE)
    return vocab


def _parse_merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    for rank, merge in enumerate(_expect(model, "merges", list, "model")):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise CheckpointError(f"tokenizer.json: merge {rank} is {merge!r}; expected two tokens")
        merges.append((parts[0], parts[1]))
    return merges


def _rank(merges: Sequence[tuple[str, str]], vocab: Mapping[str, int]) -> dict[Pair, tuple[int, int]]:
    """Rank and result of every pair. A pair listed twice has its last rank, as in the library."""
    ranks: dict[Pair, tuple[int, int]] = {}
    for rank, (left, right) in enumerate(merges):
        if missing := [token for token in (left, right, left + right) if token not in vocab]:
            raise CheckpointError(
                f"tokenizer.json: merge {rank} ({left!r}, {right!r}) needs token {missing[0]!r}, "
                "which the vocabulary does not have",
                hint=_RESAVE,
            )
        ranks[vocab[left], vocab[right]] = (rank, vocab[left + right])
    return ranks


def _refuse_stand_in_merges(merges: Sequence[tuple[str, str]], stand_ins: Collection[str]) -> None:
    """Merges over byte or unknown tokens build a token from text other than its own: parts would not be defined."""
    stand_ins = frozenset(stand_ins)
    for rank, merge in enumerate(merges):
        if not stand_ins.isdisjoint(merge):
            raise UsageError(f"tokenizer.json: merge {rank} {merge!r} joins a byte or unknown token; cannot be trimmed")


def _parse_added(tokenizer: Mapping[str, Any], vocab: Mapping[str, int]) -> dict[int, str]:
    """Added tokens by id; it must be the one they load as: the vocabulary's, else counted on from its size."""
    added: dict[int, str] = {}
    seen: set[str] = set()
    next_id = len(vocab)
    for index, entry in enumerate(_expect(tokenizer, "added_tokens", list, "tokenizer.json", default=[])):
        place = f"added_tokens[{index}]"
        if not isinstance(entry, dict):
            raise CheckpointError(f"tokenizer.json: {place} must be an object, got {type(entry).__name__}")
        content, id_ = _expect(entry, "content", str, place), _check_id(entry.get("id"), f"{place}.id")
        if not content or content in seen:
            raise CheckpointError(f"tokenizer.json: {place} has an empty or repeated content {content!r}")
        seen.add(content)
        loaded = vocab.get(content, next_id)
        next_id += content not in vocab
        if id_ != loaded:
            raise CheckpointError(
                f"tokenizer.json: {place} {content!r} says id {id_}, but loads as id {loaded}", hint=_RESAVE
            )
        added[id_] = content
    if clash := sorted(set(added) & {id_ for token, id_ in vocab.items() if added.get(id_) != token}):
        raise CheckpointError(f"tokenizer.json: added token and vocabulary share id {clash[0]}", hint=_RESAVE)
    return added


def byte_level_alphabet() -> frozenset[str]:
    """The 256 characters that stand for bytes in byte-level BPE (GPT-2): printable Latin-1, the rest from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    return frozenset(chr(code) for code in printable) | {chr(0x100 + n) for n in range(256 - len(printable))}


def _lossless_ids(tokenizer: Mapping[str, Any], model: Mapping[str, Any], vocab: Mapping[str, int]) -> set[int]:
    """Base symbols without which a text the tokenizer can write today could not be written or read back.

    Byte-level: its alphabet. Byte fallback with all 256 bytes and a decoder that reads them: the bytes, and characters
    the decoder rewrites (a U+2581 spelled in bytes would not turn into a space). Otherwise every single character.
    """
    stages = [tokenizer.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")]
    if "ByteLevel" in _types(stages):
        return {vocab[char] for char in byte_level_alphabet() if char in vocab}
    complete = all(token in vocab for token in BYTE_TOKENS)
    if model.get("byte_fallback") and complete and "ByteFallback" in _types(tokenizer.get("decoder")):
        written = "".join(_literals(stages))
        return {vocab[token] for token in (*BYTE_TOKENS, *written) if token in vocab}
    return {id_ for token, id_ in vocab.items() if len(token) == 1 or re.fullmatch(r"<0x[0-9A-F]{2}>", token)}


def _types(stage: Any) -> set[str]:
    """Every ``type`` named in a normalizer, pre-tokenizer or decoder, however deep."""
    if isinstance(stage, list):
        return set().union(*map(_types, stage))
    if isinstance(stage, dict):
        own = {stage["type"]} if isinstance(stage.get("type"), str) else set()
        return own.union(*map(_types, stage.values()))
    return set()


def _literals(stage: Any, key: str = "") -> Iterator[str]:
    """Strings that normalizers and decoders write or match."""
    if isinstance(stage, str) and key in ("replacement", "content", "prepend", "String", "Regex"):
        yield stage
    elif isinstance(stage, list):
        for member in stage:
            yield from _literals(member, key)
    elif isinstance(stage, dict):
        for name, member in stage.items():
            yield from _literals(member, name)


def _expect(holder: Mapping[str, Any], key: str, kind: type, place: str, default: Any = None) -> Any:
    value = holder.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, kind):
        raise CheckpointError(f"tokenizer.json: {place}.{key} must be a {kind.__name__}, got {type(value).__name__}")
    return value


def _optional(holder: Mapping[str, Any], key: str, kind: type, place: str) -> Any:
    return None if holder.get(key) is None else _expect(holder, key, kind, place)


def _check_id(id_: Any, place: str) -> int:
    if not isinstance(id_, int) or isinstance(id_, bool) or not 0 <= id_ < 2**32:
        raise CheckpointError(f"tokenizer.json: {place} must be a token id, got {id_!r}")
    return id_
