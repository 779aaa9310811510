"""One row per family: a tiny config with sizes that differ pairwise, and what can and cannot be cut from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VOCAB = 97


@dataclass(frozen=True, kw_only=True)
class Row:
    """``config``: fields for AutoConfig. ``absent`` and ``present``: keys that config.json files of other writers leave
    out and hold. ``cuts``: public sizes, each tried on its own unless it needs company.

    ``combined``: several axes at once. ``refused``: public sizes with a piece of the expected reason. ``drops``: layers
    that stay; ``refused_drops``: layers that stay, with a piece of the expected reason. ``exact``: tolerance on
    max|difference| / std of the logits in float64 with eps -> 0. ``eps_fields``: config fields set to (almost) 0;
    ``eps_in_code``: some norm has its eps in the code, so it is set on the modules.
    ``inexact``: cuts for which no exact equality exists (documented), with the reason. ``permute``: axes whose
    permutation is tested beyond the live, cuttable ones; ``no_permute``: axes that must fail the permutation test.
    """

    config: Mapping[str, Any]
    absent: tuple[str, ...] = ()
    present: Mapping[str, Any] = field(default_factory=dict)
    cuts: tuple[Mapping[str, int], ...]
    combined: Mapping[str, int] = field(default_factory=dict)
    refused: tuple[tuple[Mapping[str, int], str], ...] = ()
    drops: tuple[tuple[int, ...], ...] = ()
    refused_drops: tuple[tuple[tuple[int, ...], str], ...] = ()
    exact: float = 1e-10
    eps_fields: tuple[str, ...] = ()
    eps_in_code: bool = False
    inexact: Mapping[str, str] = field(default_factory=dict)
    no_permute: tuple[str, ...] = ()
    cached: bool = True
    model_type: str = ""
