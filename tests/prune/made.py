"""Small BPE tokenizers of three styles, trained in code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from secateur.pruning.vocab import (
    VocabTrim,
    choose_tokens,
    needed_tokens,
    trim_tokenizer,
)
from secateur.pruning.vocab_tokenizer import BYTE_TOKENS, byte_level_alphabet

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
