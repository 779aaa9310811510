"""A BPE tokenizer as llama.cpp has it: tokens, their kinds, merges, and the name of the rule that splits words.

llama.cpp knows splitting rules by name, not by pattern; :data:`PRE` ties the patterns of tokenizer.json to its names.
Vocabularies with byte fallback (SentencePiece's BPE) get scores from the order of their merges.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from secateur.errors import UsageError

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
PRE: Mapping[str, str] = {"": "gpt-2", _LLAMA3: "llama-bpe", _QWEN2: "qwen2"}
"""Pattern of a Split before the byte level ('': the byte level's own) -> llama.cpp's name."""
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6


def add_tokenizer(writer: Any, folder: Path, size: int, pre: str | None = None) -> str:
    """Write the tokenizer of ``folder`` for a vocabulary of ``size``; returns what was written, in words.

    ``pre``: llama.cpp's name of the splitting rule, where it is not known. Raises UsageError where it must be given.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        writer.add_tokenizer_model("no_vocab")
        return "no tokenizer: tokenizer.json is not there"
    told = json.loads(path.read_text(encoding="utf-8"))
    model = told["model"]
    if model.get("type") != "BPE":
        raise UsageError(f"{path}: a {model.get('type')} tokenizer; only BPE can be written")
    fallback = bool(model.get("byte_fallback"))
    tokens, kinds = _tokens(told, size, fallback)
    writer.add_tokenizer_model("llama" if fallback else "gpt2")
    name = "default" if fallback else pre or _pre(told, path)
    writer.add_tokenizer_pre(name)
    writer.add_token_list(tokens)
    if fallback:
        writer.add_token_scores(_scores(model, tokens))
        writer.add_add_space_prefix(_prefixed(told))
    writer.add_token_types(kinds)
    _specials(writer, folder, size, merges=not fallback)
    return f"{'SentencePiece-like' if fallback else 'byte-level'} BPE, {len(model['vocab']):,} tokens, split as {name}"


def _tokens(told: Mapping[str, Any], size: int, fallback: bool) -> tuple[list[str], list[int]]:
    tokens = [f"[PAD{i}]" for i in range(size)]
    kinds = [_UNUSED] * size
    for token, i in told["model"]["vocab"].items():
        tokens[i], kinds[i] = token, _BYTE if fallback and _is_byte(token) else _NORMAL
    for added in told.get("added_tokens", ()):
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = _CONTROL if added["special"] else _USER
    if fallback and told["model"].get("unk_token"):
        kinds[told["model"]["vocab"][told["model"]["unk_token"]]] = _UNKNOWN
    return tokens, kinds


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _scores(model: Mapping[str, Any], tokens: list[str]) -> list[float]:
    """Earlier merges first; what no merge makes has none to make it."""
    rank: dict[str, int] = {}
    for i, merge in enumerate(model["merges"]):
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        rank.setdefault(left + right, i)
    last = len(model["merges"])
    return [-float(rank.get(t, last)) for t in tokens]


def _pre(told: Mapping[str, Any], path: Path) -> str:
    patterns = [s["pattern"].get("Regex", "") for s in _steps(told.get("pre_tokenizer")) if s["type"] == "Split"]
    found = PRE.get("".join(patterns))
    if found is None:
        raise UsageError(
            f"{path}: llama.cpp's name for this splitting of words is not known here: {patterns}",
            hint="give it with --pre, as llama.cpp's converter would write it (tokenizer.ggml.pre)",
        )
    return found


def _steps(step: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if step is not None:
        yield step
        for inner in (*step.get("pretokenizers", ()), *step.get("normalizers", ())):
            yield from _steps(inner)


def _prefixed(told: Mapping[str, Any]) -> bool:
    """Whether a space is put before the text."""
    steps = [*_steps(told.get("pre_tokenizer")), *_steps(told.get("normalizer"))]
    return any(s.get("prepend_scheme") in ("first", "always") or s["type"] == "Prepend" for s in steps)


def _specials(writer: Any, folder: Path, size: int, *, merges: bool) -> None:
    import gguf

    special = gguf.SpecialVocab(folder, load_merges=merges, n_vocab=size)
    special.add_to_gguf(writer, quiet=True)
