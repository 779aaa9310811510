"""Freshly cut tiny children, and text for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from secateur.model import Model, open_model
from secateur.pruning.plan import make_plan
from secateur.pruning.run import Settings, prune
from tests.contract.harness import Parent
from tests.contract.row import VOCAB


def windows(samples: int = 20, length: int = 12, seed: int = 0, low: int = 3, high: int = VOCAB) -> torch.Tensor:
    return torch.randint(low, high, (samples, length), generator=torch.Generator().manual_seed(seed))


def cut(
    parent: Parent, out: Path, keep: Mapping[str, int] | None = None, layers: list[int] | None = None
) -> tuple[Model, Model]:
    """(parent, child cut to ``keep`` by random choice and to ``layers``)."""
    model = open_model(parent.folder)
    wanted = parent.row.combined if keep is None else keep
    plan = make_plan(model, keep=wanted, layers=layers)
    return model, prune(model, plan, out, Settings(score="random", norm="auto"))


def batches(ids: torch.Tensor, size: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(i, i) for i in ids.split(size)]


def last_states(model: Any, layer: int, ids: torch.Tensor) -> torch.Tensor:
    """The residual stream behind a layer of a plain transformers model, (batch, tokens, d)."""
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == layer + 1)
    seen = []

    def look(m: Any, args: Any, out: Any) -> None:
        seen.append(out[0] if isinstance(out, tuple) else out)

    handle = blocks[layer].register_forward_hook(look)
    with torch.no_grad():
        model(ids, use_cache=False)
    handle.remove()
    return seen[0]
