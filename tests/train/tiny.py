"""Tiny parents with a byte tokenizer, children cut from them, text they can learn, and runs that take a second."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

import secateur as sc
from secateur.pruning.plan import make_plan
from secateur.pruning.run import prune
from secateur.train import Places, Settings, distill
from tests.data.tokenizers_ import byte_tokenizer

VOCAB = 258
_ATTENTION = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=128)
CONFIGS: dict[str, dict[str, Any]] = {
    "nemotron_h": dict(
        hidden_size=24, intermediate_size=40, ssm_state_size=12, mamba_num_heads=8, mamba_head_dim=6, n_groups=2,
        chunk_size=8, tie_word_embeddings=False, **_ATTENTION,
        layers_block_type=["linear_attention", "mlp", "full_attention", "mlp"],
    ),
    "llama": dict(
        hidden_size=24, intermediate_size=40, num_hidden_layers=4, tie_word_embeddings=True, **_ATTENTION,
    ),
    "mixtral": dict(
        hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_local_experts=4, num_experts_per_tok=2,
        **_ATTENTION,
    ),
}  # fmt: skip
SETTINGS = Settings(tokens=8 * 4 * 32, length=32, batch=4, micro_batch=2, lr=3e-3, warmup=0, chunk=24)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def parent(folder: Path, name: str = "llama", *, dtype: torch.dtype = torch.float32, vocab: int = VOCAB) -> Path:
    """A random checkpoint with its tokenizer."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **{"vocab_size": vocab, **CONFIGS[name]})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():  # as wide as in a trained model, so that its predictions are worth learning
        for p in model.parameters():
            p.copy_(p + 0.1 * torch.randn(p.shape) if p.ndim == 1 else 1.2 * torch.randn(p.shape) / p.shape[-1] ** 0.5)
    model.to(dtype).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def child(folder: Path, of: Path, **keep: Any) -> Path:
    with sc.open(of) as model:
        layers = keep.pop("layers", None)
        prune(model, make_plan(model, keep=keep or {"ffn": 16}, layers=layers), folder)
    return folder


def text(folder: Path, words: int = 4000) -> Path:
    rng = random.Random(0)
    path = folder / "text.txt"
    path.write_text(" ".join(rng.choice(["the", "cat", "sat", "on", "a", "mat", "and"]) for _ in range(words)))
    return path


def heal(student: Path, teacher: Path | None, texts: Path, out: Path, *, places: Any = None, **changed: Any) -> Path:
    """One run; ``correct_teacher``, ``held_out`` and any of the settings may be given."""
    correct, held_out = changed.pop("correct_teacher", 0), changed.pop("held_out", None)
    reporter = changed.pop("reporter", None)
    settings, where = replace(SETTINGS, **changed), Places(out=out, **(places or {}))
    more = dict(correct_teacher=correct, held_out=held_out, reporter=reporter)
    distill(student, teacher, [texts], settings, where, **more)
    return out


def curve(folder: Path, key: str = "loss") -> list[float]:
    """What the log says of ``key``, in the lines that hold it."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line[key] for line in lines if key in line]
