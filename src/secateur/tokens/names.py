"""The words a token reduction is described in. A method's name is that of its file: no import, so no PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

Counting = Literal["layers", "paper", "paper-head"]
After = Literal["any", "recurrent", "attention"]
Source = Literal["auto", "scan", "attention", "output"]
Measure = Literal["clip", "mean", "l1", "l2"]

METHODS = tuple(sorted(p.stem for p in (Path(__file__).parent / "methods").glob("*.py") if p.stem != "__init__"))
COUNTING: tuple[str, ...] = get_args(Counting)
AFTER: tuple[str, ...] = get_args(After)
SOURCES: tuple[str, ...] = get_args(Source)
MEASURES: tuple[str, ...] = get_args(Measure)
