"""Count tokens of text, and prove a trimmed tokenizer by using it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from secateur.pruning.vocab_files import VocabTrim, load_library, read_tokenizer

_BATCH = 256  # texts encoded at a time


@dataclass(frozen=True)
class VocabCheck:
    """Outcome of :func:`verify_trim`. ``failures`` name text, place and what differs; empty if the trim is right.

    ``exact_texts`` come back character for character (the others lose what the parent's tokenizer loses, too);
    ``kept_words`` of ``words`` use kept tokens only and tokenise as before. ``new_tokens / old_tokens`` is the price.
    """

    texts: int
    exact_texts: int
    words: int
    kept_words: int
    old_tokens: int
    new_tokens: int
    failures: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.failures


def count_tokens(tokenizer_folder: Path, texts: Iterable[str]) -> Counter[int]:
    """Occurrences of every token id in ``texts``, without the special tokens a template adds. Streams."""
    tokenizer = load_library(read_tokenizer(tokenizer_folder)[0])
    counts: Counter[int] = Counter()
    texts = iter(texts)
    while batch := list(islice(texts, _BATCH)):
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            counts.update(encoding.ids)
    return counts


def verify_trim(old_folder: Path, new_folder: Path, trim: VocabTrim, texts: Iterable[str]) -> VocabCheck:
    """Compare both tokenizers on ``texts``. What is checked is what ``vocab`` proves, for every text:

    * the new tokenizer decodes its ids to exactly what the old one decodes its own to;
    * the words are the same, and a word whose old tokens are all kept has the old ids, renumbered.
    """
    old = load_library(read_tokenizer(old_folder)[0])
    new = load_library(read_tokenizer(new_folder)[0])
    total: Counter[str] = Counter()
    failures: list[str] = []
    for text in texts:
        found, wrong = _compare(old, new, trim, text)
        total.update(found)
        failures.extend(wrong)
    return VocabCheck(
        texts=total["texts"],
        exact_texts=total["exact_texts"],
        words=total["words"],
        kept_words=total["kept_words"],
        old_tokens=total["old_tokens"],
        new_tokens=total["new_tokens"],
        failures=tuple(failures),
    )


def _compare(old: Tokenizer, new: Tokenizer, trim: VocabTrim, text: str) -> tuple[Counter[str], list[str]]:
    before, after = (tokenizer.encode(text, add_special_tokens=False) for tokenizer in (old, new))
    old_text = old.decode(before.ids, skip_special_tokens=False)
    new_text = new.decode(after.ids, skip_special_tokens=False)
    old_words, new_words = list(_words(before)), list(_words(after))
    kept = [all(id_ in trim.mapping for id_ in word) for word in old_words]
    failures = []
    if new_text != old_text:
        failures.append(f"{text[:60]!r}: decodes to {new_text[:60]!r}, before to {old_text[:60]!r}")
    if len(old_words) != len(new_words):
        failures.append(f"{text[:60]!r}: {len(new_words)} words, before {len(old_words)}")
    for word, new_word, same in zip(old_words, new_words, kept, strict=False):
        if same and [trim.mapping[id_] for id_ in word] != new_word:
            failures.append(f"{text[:60]!r}: word {old.decode(word)!r} has ids {new_word}, before {word}")
    found = Counter(texts=1, exact_texts=new_text == text, words=len(old_words), kept_words=sum(kept))
    found.update(old_tokens=len(before.ids), new_tokens=len(after.ids))
    return found, failures


def _words(encoding: Encoding) -> Iterator[list[int]]:
    """Token ids word by word; a word is what the pre-tokenizer hands to BPE, or one added token."""
    pairs = zip(encoding.word_ids, encoding.ids, strict=True)
    for _, word in groupby(pairs, key=lambda pair: pair[0]):
        yield [id_ for _, id_ in word]
