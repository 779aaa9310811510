"""What a run is told on the command line."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.parents.configs import PARENTS

from secateur.errors import UsageError

DEFAULT_TOKENS = 20_000_000


@dataclass(frozen=True)
class Settings:
    """See :func:`parse` for what each means."""

    parent: str
    data: Path | None
    held_out: Path | None
    work: Path
    text: str
    licence: str
    tokens: int
    until: str | None
    decay_share: float
    decay_now: bool
    export: bool
    vocabulary: int
    config: dict[str, Any]
    length: int
    batch: int
    rate: float
    weight_decay: float
    clip: float
    warmup: int
    seed: int
    save_every: float
    report_every: int
    eval_every: int
    eval_rows: int
    precision: str


def parse(arguments: list[str] | None = None) -> Settings:
    """Settings from the command line. Raises UsageError for values that make no sense."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.parents.train", description="Train a small parent.")
    p.add_argument("parent", choices=sorted(PARENTS))
    p.add_argument("--data", type=Path, default=_path(os.environ.get("SECATEUR_DATA")), help="folder of text files")
    p.add_argument("--held-out", type=Path, help="file to score on; default FOLDER/eval/*heldout*.txt")
    p.add_argument("--work", type=Path, required=True, help="tokenizer, token cache, checkpoints, log, result")
    p.add_argument("--text", default="", help="what the text is, for the model card")
    p.add_argument("--licence", default="apache-2.0", help="licence of the weights, for the model card")
    p.add_argument("--tokens", type=int, default=DEFAULT_TOKENS, help="tokens in all, unless --until is given")
    p.add_argument("--until", help="HH:MM: train until this time of day instead of a number of tokens")
    p.add_argument("--decay-share", type=float, default=0.15, help="part of the run over which the rate falls to zero")
    p.add_argument("--decay-now", action="store_true", help="continue, falling to zero from here to the end")
    p.add_argument("--export", action="store_true", help="train no more: publish the last checkpoint")
    p.add_argument("--vocabulary", type=int, default=4096)
    p.add_argument("--config", type=json.loads, default={}, help="JSON object of config fields to override")
    p.add_argument("--length", type=int, default=512, help="tokens per row")
    p.add_argument("--batch", type=int, default=4, help="rows per step and process")
    p.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    p.add_argument("--weight-decay", type=float, default=0.1)
    p.add_argument("--clip", type=float, default=1.0, help="gradient norm")
    p.add_argument("--warmup", type=int, default=100, help="steps")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--save-every", type=float, default=120, help="seconds between checkpoints; 0 saves at every step")
    p.add_argument("--report-every", type=int, default=20, help="steps between progress lines")
    p.add_argument("--eval-every", type=int, default=250, help="steps between held-out scores")
    p.add_argument("--eval-rows", type=int, default=32, help="rows of those scores; the final one takes all")
    p.add_argument(
        "--precision", choices=("auto", "bf16", "fp32"), default="auto", help="auto: bf16 where it is native"
    )
    settings = Settings(**vars(p.parse_args(arguments)))
    _check(settings)
    return settings


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _check(settings: Settings) -> None:
    if not 0 <= settings.decay_share <= 1:
        raise UsageError(f"--decay-share is {settings.decay_share}, expected a part between 0 and 1")
    for name in ("tokens", "length", "batch", "warmup", "report_every", "eval_every", "eval_rows"):
        if getattr(settings, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(settings, name)}, expected at least 1")
    if not 300 <= settings.vocabulary <= 65536:
        raise UsageError(f"--vocabulary is {settings.vocabulary}, expected 300 (bytes and markers) to 65536")
