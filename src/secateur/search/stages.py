"""How well a candidate is measured: from next to nothing to a short distillation. Each costs more than the one before.

cheap       importance lost, read from statistics; no forward pass
zero-shot   KL from the parent and next-token loss of the candidate as it is cut, on some windows of text
repaired    the same after the closed-form repair
healed      the same after a short distillation
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from secateur.errors import UsageError


class Shape(Hashable, Protocol):
    """What an arena scores: a :class:`secateur.search.candidates.Candidate`, or a type of one's own that
    :func:`secateur.search.bench.built` and :func:`secateur.search.planned.planned` are registered for."""

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Stage:
    """``windows``: which of the bench's windows are read, none for the cheap score. ``heal``: tokens of distillation
    before it; ``repair``: least squares before it. Equal stages are measured once per candidate."""

    name: str
    windows: tuple[int, ...] = ()
    heal: int = 0
    repair: bool = False

    def __post_init__(self) -> None:
        if self.heal < 0 or (not self.windows and (self.heal or self.repair)):
            raise UsageError(f"stage {self.name!r}: heals {self.heal} tokens and reads {len(self.windows)} windows")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "windows": list(self.windows)}


@dataclass(frozen=True, slots=True)
class Score:
    """``kl``: mean over tokens of KL(parent || candidate) in nats (the cheap stage: importance lost, in layers).
    ``nll``: mean next-token loss in nats. ``seconds``: what measuring it cost."""

    kl: float
    nll: float
    seconds: float = 0.0

    def to_json(self) -> dict[str, float]:
        return asdict(self)
