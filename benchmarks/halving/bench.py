"""What all units share: the parent, the text, and how a model is scored on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common import drive
from benchmarks.parents.data import Rows, find_text, token_bytes, tokenize
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from secateur.calibration.stats import Stats, calibrate, load_stats
from secateur.evaluation.equality import load_strict
from secateur.importance import taylor
from secateur.kernels import fast
from secateur.model import Model, open_model

LENGTH = 512


@dataclass(frozen=True)
class Bench:
    """``samples``: calibration windows of 512 tokens. ``rows``: evenly spread rows of the judging text (None: all).

    ``judge``: ``held-out`` for results, ``train`` for choices (settings are never chosen on the held-out file).
    """

    parent: Path
    data: Path | None
    work: Path
    samples: int = 64
    rows: int | None = 128
    judge: str = "held-out"
    length: int = LENGTH

    @cached_property
    def model(self) -> Model:
        return open_model(self.parent)

    @cached_property
    def digest(self) -> str:
        """Names the parent's weights in every result."""
        return drive.digest(self.parent)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return PreTrainedTokenizerFast.from_pretrained(self.parent)

    @cached_property
    def train(self) -> Rows:
        return self._rows(find_text(self.data, None).train)

    @cached_property
    def judged(self) -> Rows:
        return self.train if self.judge == "train" else self._rows([find_text(self.data, None).held_out])

    def _rows(self, files: Sequence[Path]) -> Rows:
        self.work.mkdir(parents=True, exist_ok=True)
        return Rows(tokenize(files, self.tokenizer, self.work), self.length, self.tokenizer.bos_token_id)

    @cached_property
    def chosen(self) -> list[int]:
        """Rows of the judging text. Training rows are taken half a step aside of an even spread."""
        count = len(self.judged)
        wanted = min(self.rows or count, count)
        return [(2 * i + (self.judge == "train")) * count // (2 * wanted) for i in range(wanted)]

    def windows(self, seed: int) -> Tensor:
        """Calibration windows (samples, length) of training text, drawn under ``seed``."""
        drawn = np.random.default_rng([seed, 1]).choice(len(self.train), self.samples, replace=False)
        return self.train.take(np.sort(drawn))[0]

    def stats(self, seed: int) -> Stats:
        """Statistics of the parent on those windows, with first-order Taylor; kept in the work folder."""
        path = self.work / f"stats-{self.digest}-{self.samples}-{seed}.safetensors"
        if not path.exists():
            windows = self.windows(seed)
            found = calibrate(self.model, windows, batch=4)
            found.adding(taylor.measure(self.model, windows[: max(1, self.samples // 2)], batch=4)).save(path)
        return load_stats(path, self.model)

    def score_folder(self, folder: Path) -> dict[str, Any]:
        """Loss of a checkpoint on the judging rows."""
        model = load_strict(folder)
        with fast(model):
            return self.score(model)

    @torch.no_grad()
    def score(self, model: Any, batch: int = 4) -> dict[str, Any]:
        """Nats per token and bits per byte; bf16 autocast, as in training."""
        nats = size = tokens = 0.0
        counts = token_bytes(self.tokenizer)
        for at in range(0, len(self.chosen), batch):
            inputs, targets = self.judged.take(self.chosen[at : at + batch])
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(input_ids=inputs, use_cache=False).logits
            losses = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")
            nats, size, tokens = nats + losses.item(), size + counts[targets].sum().item(), tokens + targets.numel()
        return {"loss": nats / tokens, "bits_per_byte": nats / math.log(2) / size, "scored_tokens": int(tokens)}
