"""What models write after the same beginnings, greedily."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from secateur.evaluate.decode import greedy
from secateur.evaluate.windows import Source

PROMPT_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Prompt:
    """The beginning of a paragraph, and how the text itself goes on."""

    text: str
    truth: str


def prompts(sources: Sequence[Source], count: int) -> list[Prompt]:
    """``count`` beginnings at even distances through the documents, each opening a paragraph where there is one.

    Counted in characters, so that every tokenizer gets the same text. Fewer when the text is short.
    """
    text = "\n\n".join(d for s in sources for d in s.documents)
    found: dict[int, Prompt] = {}
    for i in range(count):
        at = i * len(text) // count
        paragraph = text.find("\n\n", at) if at else 0
        start = paragraph if 0 <= paragraph < (i + 1) * len(text) // count else at
        beginning = text[start:].lstrip()[: 4 * PROMPT_CHARACTERS]
        end = beginning.find(" ", PROMPT_CHARACTERS)
        if end > 0:
            found.setdefault(start, Prompt(beginning[:end], beginning[end : end + 2 * PROMPT_CHARACTERS]))
    return list(found.values())


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
