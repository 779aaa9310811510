"""The finished parent: a folder transformers loads as it stands, with a model card that says where it comes from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

CARD = """---
license: {licence}
library_name: transformers
tags: [secateur, {model_type}]
---
# {name}

A small `{model_type}` model of {parameters:,} parameters ({embedding:,} of them in embedding and output matrix),
trained from random weights as a parent to prune. It is made for measuring compression, not for use: it knows English
prose of its training text and little else.

- **Text**: {text}; {tokens:,} tokens were seen ({epochs:.2f} passes over {available:,}), in rows of {length},
  each behind a beginning-of-sequence token.
- **Quality**: {bits:.4f} bits per byte ({nats:.4f} nats per token) on `{held_out}`, {held_out_bytes:,} bytes that were
  never trained on, scored with the bf16 weights of this folder in rows of {length} tokens.
- **Tokenizer**: byte-level BPE with {vocabulary} entries, trained on the training text.
- **Training**: {steps:,} steps of {batch_tokens:,} tokens, AdamW (0.9, 0.95), peak rate {rate:g}, weight decay
  {weight_decay:g}, clipping at {clip:g}, warm-up {warmup} steps, stable, linear decay over the last {decay_tokens:,}
  tokens; {arithmetic}, seed {seed}.
- **Made by**: `benchmarks/parents/train.py` of Secateur.
"""


@dataclass(frozen=True)
class Facts:
    """What the card says."""

    name: str
    model_type: str
    licence: str
    text: str
    parameters: int
    embedding: int
    tokens: int
    available: int
    length: int
    bits: float
    nats: float
    held_out: str
    held_out_bytes: int
    vocabulary: int
    steps: int
    arithmetic: str
    batch_tokens: int
    rate: float
    weight_decay: float
    clip: float
    warmup: int
    decay_tokens: int
    seed: int

    def card(self) -> str:
        return CARD.format(**vars(self), epochs=self.tokens / self.available)


def embedding_parameters(model: PreTrainedModel) -> int:
    """Parameters of the token embedding and of an output matrix of its own."""
    ends = {id(m.weight): m.weight for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    return sum(weight.numel() for weight in ends.values())


def stage(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Weights, config and tokenizer in a folder beside ``folder``, to be scored and then published."""
    staging = folder.with_name(f"{folder.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    model.save_pretrained(staging)
    tokenizer.save_pretrained(staging)
    return staging


def publish(staging: Path, folder: Path, facts: Facts) -> None:
    """Adds the card and moves the staged folder into place; an older result is kept as ``NAME.before``."""
    (staging / "README.md").write_text(facts.card(), encoding="utf-8")
    before = folder.with_name(f"{folder.name}.before")
    if folder.exists():
        shutil.rmtree(before, ignore_errors=True)
        folder.rename(before)
    staging.rename(folder)
