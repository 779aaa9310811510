"""What a healing run is told. Every field shapes the curve: a run is resumed only with equal settings."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from secateur.errors import SecateurError, UsageError
from secateur.train.losses import DIVERGENCES, HIDDEN

FLOOR = 20
"""The schedule ends at peak / 20. Minitron-SSM (arXiv 2504.11409) prints a floor above its peak, which is a typo."""
WARMUP = 60
"""Steps of linear warm-up, as in Minitron-SSM; a tenth of shorter runs."""


_COUNT = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)([kMBT]?)")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def token_count(value: int | str, name: str) -> int:
    """``"20M"`` -> 20000000. UsageError, naming the option, for what is no number of tokens above zero."""
    match = _COUNT.fullmatch(str(value).replace(",", "").replace("_", ""))
    if not match or not float(match[1]):
        raise UsageError(f"{name} {value!r} is no number of tokens; write 20M, 1.5B or 300000")
    return int(float(match[1]) * _UNITS[match[2]])


class TrainingError(SecateurError):
    """The run cannot go on: the loss is not finite, or the saved state does not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``tokens``: to train on; ``length``: of a window; ``batch``: windows per step over all processes.

    ``loss``: divergence from the teacher, at ``temperature``; ``ce``: share of cross-entropy, 1 for no teacher at
    all. ``hidden``: loss between hidden states, of layers ``hidden_layers`` (student, teacher) or the seams of a
    depth cut; ``hidden_weight``: its size relative to the rest. ``top_k``: of a teacher cached on disk. ``lr``: peak,
    reached after ``warmup`` steps, then a cosine to a twentieth. ``clip``: norm of the gradient. ``micro_batch``:
    windows in memory at once, per process. ``chunk``: tokens whose logits exist at once. ``save_every``: steps.
    ``repeat``: short text may be repeated.
    """

    tokens: int
    length: int = 512
    batch: int = 16
    micro_batch: int = 4
    lr: float = 1e-4
    warmup: int | None = None
    weight_decay: float = 0.1
    clip: float = 1.0
    loss: str = "kl"
    temperature: float = 1.0
    ce: float = 0.0
    hidden: str | None = None
    hidden_layers: tuple[tuple[int, int], ...] = ()
    hidden_weight: float = 1.0
    top_k: int | None = None
    bf16: bool = False
    seed: int = 0
    chunk: int = 512
    save_every: int | None = None
    repeat: bool = False

    def __post_init__(self) -> None:
        self._choices()
        for name in ("length", "batch", "micro_batch", "chunk", "warmup", "save_every", "top_k"):
            value = getattr(self, name)
            if value is not None and value < (2 if name == "length" else 0 if name == "warmup" else 1):
                raise UsageError(f"{name} is {value}, expected a positive count")
        for name in ("lr", "clip", "temperature", "hidden_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} is {value}, expected a positive number")
        if not 0 <= self.ce <= 1 or not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"ce is {self.ce} and weight_decay {self.weight_decay}, expected 0 to 1 and 0 or more")
        if self.tokens < self.batch * self.length:
            raise UsageError(
                f"tokens is {self.tokens:,}, less than one step of {self.batch} windows of {self.length}",
                hint="give more tokens, or a smaller batch",
            )

    def _choices(self) -> None:
        if self.loss not in DIVERGENCES:
            raise UsageError(f"loss is {self.loss!r}, expected one of {', '.join(DIVERGENCES)}")
        if self.hidden is not None and self.hidden not in HIDDEN:
            raise UsageError(f"hidden is {self.hidden!r}, expected one of {', '.join(HIDDEN)}")
        if self.hidden_layers and self.hidden is None:
            raise UsageError("hidden_layers are given without a hidden-state loss")
        if self.hidden is not None and (self.top_k is not None or self.ce == 1):
            raise UsageError("a hidden-state loss needs the teacher itself: leave out the cache, and ce below 1")
        if self.top_k is not None and self.ce == 1:
            raise UsageError("ce is 1, so there is no teacher to cache")

    @property
    def steps(self) -> int:
        """Optimizer steps; a rest of tokens smaller than a batch is not trained on."""
        return self.tokens // (self.batch * self.length)

    @property
    def saves(self) -> int:
        """Steps between two saved states: as told, or a twentieth of the run."""
        return self.save_every or max(1, self.steps // 20)

    def learning_rate(self, step: int) -> float:
        """Of the step that is number ``step``, from 0: linear to the peak, then a cosine to a twentieth of it."""
        warmup = min(WARMUP, self.steps // 10) if self.warmup is None else self.warmup
        if step < warmup:
            return self.lr * (step + 1) / warmup
        done = (step - warmup) / max(1, self.steps - 1 - warmup)
        floor = self.lr / FLOOR
        return floor + (self.lr - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "hidden_layers": [list(p) for p in self.hidden_layers]}
