"""Brute force: a plainly loaded model, hooks on its modules, sums in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateur.calibration.stats import Stats, calibrate
from secateur.model import open_model
from tests.contract.harness import Parent, double_precision, ids, load

LENGTH = 21


def measure(folder: Path, tokens: torch.Tensor | None = None, batch: int = 1, **about: Any) -> Stats:
    """Statistics in float64."""
    with double_precision(), open_model(folder) as model:
        return calibrate(model, ids(LENGTH) if tokens is None else tokens, batch=batch, dtype=torch.float64)


def blocks(model: torch.nn.Module, count: int) -> torch.nn.ModuleList:
    return next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count)


class Watched:
    """A plain model that keeps what goes into and comes out of modules, by (layer, module path, side)."""

    def __init__(self, parent: Parent) -> None:
        self.parent = parent
        self.model = load(parent.folder)
        self.blocks = blocks(self.model, parent.anatomy.n_layers)
        self.seen: dict[tuple[int, str, str], torch.Tensor] = {}

    def run(self, wanted: list[tuple[int, str]]) -> Watched:
        handles = []
        for layer, path in wanted:

            def keep(module: Any, args: Any, out: Any, at: tuple[int, str] = (layer, path)) -> None:
                # hidden states by position or by name
                self.seen[(*at, "out")] = out[0] if isinstance(out, tuple) else out
                if args:
                    self.seen[(*at, "in")] = args[0]

            handles.append(self.blocks[layer].get_submodule(path).register_forward_hook(keep))
        with double_precision(), torch.no_grad():
            self.model(ids(LENGTH), use_cache=False)
        for h in handles:
            h.remove()
        return self

    def rows(self, layer: int, path: str, side: str) -> np.ndarray:
        """Activations as (samples, tokens, channels)."""
        a = self.seen[layer, path, side]
        return a.reshape(len(ids(LENGTH)), -1, a.shape[-1]).numpy()


def agg(a: np.ndarray) -> np.ndarray:
    """L2 over samples of the mean |a| over tokens, as written in the paper."""
    return np.sqrt(sum(np.abs(sample).mean(0) ** 2 for sample in a))
