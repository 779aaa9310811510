"""What is asked of a token reduction: a frozen value that is saved beside the checkpoint's config.json.

secateur_tokens.json   {"secateur_tokens": 1, "method": "utrc", "flops": 0.8, "locations": [...], ...}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from secateur.errors import UsageError
from secateur.tokens.names import AFTER, COUNTING, MEASURES, METHODS, SOURCES, After, Counting, Measure, Source

FILE = "secateur_tokens.json"
VERSION = 1
LEAST = 0.5
"""A location keeps at least this share of its tokens: UTRC matches one half of them with the other."""


@dataclass(frozen=True, slots=True)
class TokenReduction:
    """How a prompt's tokens are reduced inside a model.

    ``flops``: operations of reading a prompt that are left, as a share of the full ones; the ratios follow for every
    length of prompt. ``ratios`` say instead what share of its tokens each location keeps, from 0.5 to 1.
    ``locations``: decoder layers behind which tokens go, counted from 0; empty: spread as the paper spreads them.
    ``strengths``: how hard each location cuts relative to the others (token shares exp(-s * strength), s follows
    from ``flops``); empty: all alike. ``counting``: operations of the model's own layers, the head once per prompt
    ("layers"), or the paper's equal layers without or with a head ("paper", "paper-head").
    ``after``: kinds of layer that default locations may stand behind. ``importance``: what tells how much a token
    matters; ``measure``: how channels become one number. ``prune``: share of UTRC's pairs that are dropped instead of
    merged in the hidden branch. ``causal``: a token is merged into later ones only, so no position learns of its
    future. ``seed``: of the method random. ``shortest``: prompts of fewer tokens are left alone.
    """

    method: str = "utrc"
    flops: float | None = None
    locations: tuple[int, ...] = ()
    ratios: tuple[float, ...] = ()
    strengths: tuple[float, ...] = ()
    counting: Counting = "layers"
    after: After = "any"
    importance: Source = "auto"
    measure: Measure = "clip"
    prune: float = 0.5
    causal: bool = False
    seed: int = 0
    shortest: int = 16

    def __post_init__(self) -> None:
        for name in ("locations", "ratios", "strengths"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for value, known, what in (
            (self.method, METHODS, "method"), (self.counting, COUNTING, "counting"), (self.after, AFTER, "after"),
            (self.importance, SOURCES, "importance"), (self.measure, MEASURES, "measure"),
        ):  # fmt: skip
            if value not in known:
                raise UsageError(f"token reduction: {what} {value!r}, expected one of {', '.join(known)}")
        self._check_amount()
        if not 0 <= self.prune <= 1:
            raise UsageError(f"token reduction: prune {self.prune}, expected a share from 0 to 1")
        if self.shortest < 2:
            raise UsageError(f"token reduction: shortest {self.shortest}, expected at least 2 tokens")

    def _check_amount(self) -> None:
        if (self.flops is None) == (not self.ratios):
            raise UsageError(
                f"token reduction: flops {self.flops} and ratios {self.ratios}: expected exactly one of them",
                hint="TokenReduction(flops=0.8), or TokenReduction(locations=(4, 8), ratios=(0.9, 0.9))",
            )
        if self.flops is not None and not 0 < self.flops <= 1:
            raise UsageError(f"token reduction: flops {self.flops}, expected a share above 0 and at most 1")
        if any(not LEAST <= r <= 1 for r in self.ratios):
            raise UsageError(f"token reduction: ratios {self.ratios}, expected shares from {LEAST} to 1")
        if list(self.locations) != sorted(set(self.locations)) or any(x < 0 for x in self.locations):
            raise UsageError(f"token reduction: locations {self.locations}, expected rising indices of layers")
        for name, values in (("ratios", self.ratios), ("strengths", self.strengths)):
            if values and len(values) != len(self.locations):
                raise UsageError(f"token reduction: {len(values)} {name} for {len(self.locations)} locations")
        if any(x < 0 for x in self.strengths) or (self.strengths and not any(self.strengths)):
            raise UsageError(f"token reduction: strengths {self.strengths}, expected none below 0 and one above")

    def to_json(self) -> dict[str, Any]:
        """The document of ``secateur_tokens.json``."""
        return {"secateur_tokens": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, document: Any, place: str = "token reduction") -> TokenReduction:
        """Raises UsageError naming ``place`` for anything that :meth:`to_json` did not write."""
        if not isinstance(document, Mapping) or document.get("secateur_tokens") != VERSION:
            raise UsageError(f"{place}: holds no token reduction of version {VERSION}")
        values = {k: v for k, v in document.items() if k != "secateur_tokens"}
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise UsageError(f"{place}: {sorted(unknown)[0]!r} is no setting of a token reduction")
        try:
            return cls(**values)
        except TypeError as cause:
            raise UsageError(f"{place}: {cause}") from cause

    def save(self, folder: str | Path) -> Path:
        """Write ``secateur_tokens.json`` into a checkpoint's folder."""
        from secateur.checkpoint import write_json

        place = Path(folder)
        if not (place / "config.json").is_file():
            raise UsageError(f"{place}: holds no config.json", hint="name the folder of a checkpoint")
        write_json(place / FILE, self.to_json())
        return place / FILE

    @classmethod
    def load(cls, folder: str | Path) -> TokenReduction:
        """What :meth:`save` wrote. Raises UsageError when there is nothing of that kind."""
        path = Path(folder) / FILE
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")), str(path))
        except OSError as cause:
            raise UsageError(
                f"{path}: {cause.strerror}", hint="TokenReduction(flops=0.8).save(folder) writes it"
            ) from cause
        except ValueError as cause:
            raise UsageError(f"{path}: is not JSON: {cause}") from cause

    def but(self, **changes: Any) -> TokenReduction:
        """The same with some fields changed."""
        return replace(self, **changes)


__all__ = ["FILE", "LEAST", "TokenReduction"]
