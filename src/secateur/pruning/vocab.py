"""Choose the tokens a smaller vocabulary keeps.

A BPE token stays useful only while the tokens BPE builds it from stay: the kept set is *closed* under parts (see
``vocab_tokenizer``). Under that closure the trimmed tokenizer is exact where it can be:

* every word (pre-token) whose old tokens are all kept is tokenised to the same tokens, renumbered. Proof: each symbol
  that appears while the old BPE runs on the word is part of a final token, hence kept; the remaining merges are exactly
  those between kept tokens, in the old order; so the new heap holds the old entries minus some that were stale when
  popped, and both runs merge the same pairs. With ``ignore_merges`` the look-up of whole words finds the same token.
* any text decodes to what the old tokenizer would decode, since bytes (or all single characters) are kept.

Closure under *some* merge of a token would not do: vocabularies converted from SentencePiece or tiktoken list every
split of a token as a merge, and BPE takes only one of them.

The choice itself removes, one by one, the cheapest token no kept token is built from, and credits its count to its
parts (leaf-based pruning, cf. Purason et al., arXiv 2512.03989). Every size from the minimum to the current one is met
exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from heapq import heapify, heappop, heappush
from typing import Any

from secateur.errors import BudgetError, UsageError
from secateur.pruning.vocab_check import VocabCheck, count_tokens, verify_trim
from secateur.pruning.vocab_files import VocabTrim, needed_tokens, trim_tokenizer
from secateur.pruning.vocab_tokenizer import BpeTokenizer, parse_bpe

__all__ = [
    "VocabCheck",
    "VocabTrim",
    "choose_tokens",
    "close_tokens",
    "count_tokens",
    "needed_tokens",
    "trim_tokenizer",
    "verify_trim",
]


def choose_tokens(
    tokenizer: dict[str, Any],
    size: int,
    *,
    counts: Mapping[int, int] | None = None,
    keep: Collection[int] = (),
    rows: int | None = None,
) -> list[int]:
    """Old ids of a vocabulary of ``size`` rows, sorted.

    Always kept: added and special tokens, ids the post-processor, the padding and ``keep`` name, the base symbols that
    keep any text writable, and everything those are built from. The rest goes cheapest first: tokens no text can
    produce, then by ``counts`` (occurrences of each id, from :func:`count_tokens`), then the latest id; without counts
    this is the latest id first, single characters last.

    ``rows`` is the number of embedding rows where it differs from the number of ids: rows without a token go first
    (they stay only to reach ``size``, for instance a multiple of 64, or when ``keep`` names them), and added tokens
    without a row, which no model can read, take no place.

    Raises ``BudgetError`` for a size outside [minimum, rows], ``UsageError`` for ids or counts that make no sense and
    for models other than BPE, ``CheckpointError`` for a malformed tokenizer.
    """
    bpe = parse_bpe(tokenizer)
    rows = max(bpe.contents) + 1 if rows is None else rows
    _check_request(size, counts or {}, keep, rows)
    bpe.check_rows(rows)
    forced = _with_rows(bpe.always_kept() | bpe.close(keep), rows)
    if not len(forced) <= size <= rows:
        raise _size_error(bpe, size, rows, forced)
    tokens = _with_rows(bpe.contents, rows)
    empty = [row for row in range(rows) if row not in tokens and row not in forced]
    spare = size - len(tokens | forced)
    if spare >= 0:
        return sorted(tokens | forced | set(empty[:spare]))
    return sorted(_prune_leaves(bpe, tokens | forced, forced, size, counts or {}))


def close_tokens(tokenizer: dict[str, Any], ids: Collection[int]) -> list[int]:
    """The smallest valid vocabulary that holds ``ids``: the tokens always kept and all parts with them. Sorted."""
    bpe = parse_bpe(tokenizer)
    _check_request(1, {}, ids, max(bpe.contents) + 1)
    return sorted(bpe.always_kept() | bpe.close(ids))


def _prune_leaves(
    bpe: BpeTokenizer, tokens: set[int], forced: set[int], size: int, counts: Mapping[int, int]
) -> set[int]:
    """Remove tokens that no kept token is built from, cheapest first, until ``size`` are left. O(n log n)."""
    left, weight = set(tokens), Counter(counts)
    built_from_it = Counter(part for id_ in tokens for part in bpe.parts.get(id_, ()))

    def cost(id_: int) -> tuple[int, bool, bool, int, int]:
        content = bpe.contents[id_]
        is_base = len(content) == 1
        # A character spelled in bytes costs one token per byte; a merged token falls apart into its two parts.
        length = len(content.encode("utf-8", "surrogatepass")) if is_base else 1
        return weight[id_] * length, not bpe.is_dead(id_), is_base, -id_, id_

    heap = [cost(id_) for id_ in tokens - forced if not built_from_it[id_]]
    heapify(heap)
    while len(left) > size:
        *_, id_ = heappop(heap)
        left.remove(id_)
        for part in bpe.parts.get(id_, ()):
            weight[part] += weight[id_]
            built_from_it[part] -= 1
        for part in set(bpe.parts.get(id_, ())) - forced:
            if not built_from_it[part]:
                heappush(heap, cost(part))
    return left


def _with_rows(ids: Collection[int], rows: int) -> set[int]:
    return {id_ for id_ in ids if id_ < rows}


def _check_request(size: int, counts: Mapping[int, int], keep: Collection[int], rows: int) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise UsageError(f"vocabulary size must be a positive integer, got {size!r}")
    for name, ids in (("keep", keep), ("counts", counts)):
        for id_ in ids:
            if not isinstance(id_, int) or isinstance(id_, bool) or not 0 <= id_ < rows:
                raise UsageError(f"{name}: token id {id_!r} is outside the vocabulary of {rows} rows")
    for id_, count in counts.items():
        if count < 0:
            raise UsageError(f"counts: token id {id_} has the negative count {count}")


def _size_error(bpe: BpeTokenizer, size: int, rows: int, forced: set[int]) -> BudgetError:
    if size > rows:
        return BudgetError(
            f"vocabulary size {size} is above the current {rows} rows", hint="trimming only removes rows"
        )
    base = len(bpe.lossless - set(bpe.added))
    added = len(_with_rows(bpe.added, rows))
    return BudgetError(
        f"vocabulary size {size} is below the minimum of {len(forced)}: {added} added and special tokens, {base} base "
        f"symbols so that every text stays writable, {len(forced) - base - added} tokens these or the configs need",
        hint=f"ask for at least {len(forced)}",
    )
