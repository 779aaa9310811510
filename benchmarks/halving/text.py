"""Text to heal on: passages from all training files, drawn under a seed, as one plain file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from benchmarks.parents.data import find_text

PASSAGE = 16_000
"""Characters; about 4,000 tokens, so that few windows of 512 hold a seam."""
_CHARACTERS_A_TOKEN = 4.2
"""More than any text here has, so that the file is never too short."""


def write_passages(data: Path | None, seed: int, tokens: int, out: Path) -> Path:
    """Passages for ``tokens`` tokens at ``out``, unless they are there. Passages end at blank lines."""
    if out.exists():
        return out
    passages = [p for file in find_text(data, None).train for p in _passages(file.read_text(encoding="utf-8"))]
    order = np.random.default_rng([seed, 2]).permutation(len(passages))
    wanted, taken = tokens * _CHARACTERS_A_TOKEN, []
    for i in order:
        taken.append(passages[i])
        wanted -= len(passages[i])
        if wanted <= 0:
            break
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text("".join(taken), encoding="utf-8")
    part.replace(out)
    return out


def _passages(text: str) -> list[str]:
    found, start = [], 0
    while start < len(text):
        end = text.find("\n\n", start + PASSAGE)
        end = len(text) if end < 0 else end + 2
        found.append(text[start:end])
        start = end
    return found
