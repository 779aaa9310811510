"""What models write after the same beginnings, greedily."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from secateur.evaluation.decode import greedy
from secateur.evaluation.windows import Source

PROMPT_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Prompt:
    """The beginning of a paragraph, and how the text itself goes on."""

    text: str
    truth: str


def prompts(sources: Sequence[Source], count: int) -> list[Prompt]:
    """``count`` beginnings at even distances through the text: of paragraphs that are long enough, else of anything.

    Counted in characters, so that every tokenizer gets the same text. Fewer when the text is short.
    """
    texts = [d for s in sources for d in s.documents]
    long = [p.strip() for d in texts for p in d.split("\n\n") if len(p.strip()) >= 2 * PROMPT_CHARACTERS]
    if len(long) < count:
        whole = " ".join(texts)
        starts = [whole.find(" ", i * len(whole) // count) for i in range(1, count)]
        long = [whole, *(whole[at + 1 :] for at in starts if at >= 0)]
    chosen = [long[i * len(long) // count] for i in range(min(count, len(long)))]
    return [p for text in dict.fromkeys(chosen) if (p := _prompt(text)) is not None]


def _prompt(text: str) -> Prompt | None:
    """Both parts end between words; None when there is nothing behind the beginning."""
    end = text.find(" ", PROMPT_CHARACTERS)
    rest = text[end : end + 2 * PROMPT_CHARACTERS]
    return Prompt(text[:end], rest[: rest.rfind(" ")] or rest) if end > 0 else None


def complete(model: Any, tokenizer: Any, beginning: str, tokens: int) -> str:
    """What a loaded model writes after ``beginning``: ``tokens`` tokens, fewer when it ends the text itself."""
    ids = tokenizer(beginning, return_tensors="pt")["input_ids"]
    stop = frozenset(() if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,))
    new = greedy(model, ids, tokens, stop)
    # decoded together: a tokenizer may drop the space at the border of a part
    whole: str = tokenizer.decode([*ids[0].tolist(), *new], skip_special_tokens=True)
    known: str = tokenizer.decode(ids[0].tolist(), skip_special_tokens=True)
    return whole[len(known) :] if whole.startswith(known) else tokenizer.decode(new, skip_special_tokens=True)


__all__ = ["Prompt", "complete", "prompts"]
