"""What a search is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateur.errors import UsageError
from secateur.evaluation.load import Place
from secateur.search.budget import parse_limit
from secateur.search.outcome import Effort
from secateur.search.resources import RESOURCES, Resource, Workload
from secateur.search.strategies import STRATEGIES

#: Resources that have to be measured on this machine first.
TIMES = ("latency", "prefill", "decode")
#: Stands for what the parent takes where only the spelling of an amount is looked at.
_ANY = 10.0**15


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``wanted``: resource -> amount as people write it. ``axes``: that may change, None for all the config can resize.
    ``depth``: layers may go, all but ``least_layers``. ``workload``: what cache and latency are counted for.

    ``samples`` windows of ``length`` tokens are measured on, ``lessons`` more are distilled on. ``seconds``: to spend,
    None for as long as the effort lasts. ``criterion``: which units stay, '' the default. ``place``: where latency is
    measured.
    """

    wanted: Mapping[str, str]
    strategy: str = "evolutionary"
    effort: Effort = field(default_factory=Effort)
    seconds: float | None = None
    seed: int = 0
    axes: tuple[str, ...] | None = None
    depth: bool = True
    least_layers: int = 1
    workload: Workload = field(default_factory=Workload)
    samples: int = 64
    lessons: int = 64
    length: int = 256
    batch: int = 4
    criterion: str = ""
    place: Place = field(default_factory=Place)

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise UsageError(f"strategy {self.strategy!r} is unknown, expected one of {', '.join(STRATEGIES)}")
        unknown = [n for n in self.wanted if n not in (*RESOURCES, *TIMES)]
        if unknown or not self.wanted:
            expected = ", ".join((*RESOURCES, *TIMES))
            raise UsageError(f"budget {unknown[0] if unknown else 'empty'}: expected one or more of {expected}")
        for name, text in self.wanted.items():  # before minutes are spent on statistics and tables
            parse_limit(text, _ANY, RESOURCES.get(name) or Resource(name, "seconds", "", RESOURCES["params"].meter))


def split(options: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """(amounts of resources that are given, the other options)."""
    names = (*RESOURCES, *TIMES)
    amounts = {n: str(options[n]) for n in names if options.get(n) is not None}
    return amounts, {n: v for n, v in options.items() if n not in names}


@dataclass(frozen=True, slots=True)
class Files:
    """``work``: journal, statistics and latency table, which the next search there uses again; None keeps nothing.
    ``table``: a latency table that lies elsewhere, measured into that place when it is not there yet."""

    work: Path | None = None
    table: Path | None = None
