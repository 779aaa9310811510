"""The words a token reduction is described in. ``METHODS`` is checked against the registry in methods/."""

from __future__ import annotations

from typing import Literal, get_args

Name = Literal["utrc", "evit", "pumer", "importance", "random", "stride"]
Counting = Literal["layers", "paper", "paper-head"]
After = Literal["any", "recurrent", "attention"]
Source = Literal["auto", "scan", "attention", "output"]
Measure = Literal["clip", "mean", "l1", "l2"]

METHODS: tuple[str, ...] = get_args(Name)
COUNTING: tuple[str, ...] = get_args(Counting)
AFTER: tuple[str, ...] = get_args(After)
SOURCES: tuple[str, ...] = get_args(Source)
MEASURES: tuple[str, ...] = get_args(Measure)
