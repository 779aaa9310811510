"""A loaded parent and windows of text, a prompt and what follows it, drawn under a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import drive
from benchmarks.parents.data import find_text, tokenize
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from secateur.evaluation.equality import load_strict
from secateur.tokens.score import Judge, everywhere, judge

AFTER = 64
"""Tokens behind the prompt that are judged."""
WINDOWS = {256: 16, 512: 8, 1024: 4, 2048: 2}
"""Windows of a seed, by the length of the prompt."""


@dataclass(frozen=True)
class Bench:
    """``name``: what tables call the parent. ``held_out``: text to judge on, for parents that were trained on another
    kind than the data folder's held-out file."""

    parent: Path
    name: str
    data: Path | None
    work: Path
    held_out: Path | None = None

    @cached_property
    def network(self) -> Any:
        return load_strict(self.parent)

    @cached_property
    def digest(self) -> str:
        """Names the parent's weights in every result."""
        return drive.digest(self.parent)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return PreTrainedTokenizerFast.from_pretrained(self.parent)

    @lru_cache(maxsize=2)  # noqa: B019  one bench per process
    def ids(self, train: bool) -> Tensor:
        found = find_text(self.data, self.held_out)
        files: Sequence[Path] = found.train[:1] if train else [found.held_out]
        self.work.mkdir(parents=True, exist_ok=True)
        return torch.from_numpy(tokenize(files, self.tokenizer, self.work).astype("int64"))

    def windows(self, prompt: int, seed: int, *, train: bool = False, times: int = 1) -> Tensor:
        """(windows, prompt + AFTER), at random places; ``times`` as many as WINDOWS says."""
        ids, length = self.ids(train), prompt + AFTER
        draw = torch.Generator().manual_seed(1000 * prompt + seed + (500 if train else 0))
        starts = torch.randint(len(ids) - length, (times * WINDOWS[prompt],), generator=draw)
        return torch.stack([ids[s : s + length] for s in starts.tolist()])

    @lru_cache(maxsize=1)  # noqa: B019
    def everywhere(self, prompt: int, seed: int) -> list[Tensor]:
        """What the full model says behind every token of the prompts."""
        return [everywhere(self.network, b[:, :prompt]) for b in self.judge(prompt, seed).batches]

    @lru_cache(maxsize=1)  # noqa: B019  the units of one length and seed come one after the other
    def judge(self, prompt: int, seed: int, train: bool = False, times: int = 1) -> Judge:
        windows = self.windows(prompt, seed, train=train, times=times)
        return judge(self.network, windows, prompt, batch=2 if prompt > 1024 else 4)
