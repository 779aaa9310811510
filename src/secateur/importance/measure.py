"""Everything criteria read, measured in one call: each entry of ``observe`` is one pass over the same windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from secateur.calibration.stats import Stats, calibrate
from secateur.errors import UsageError
from secateur.importance import depth, taylor
from secateur.model import Model

#: What can be observed, and what a progress bar calls it. The first one streams block by block and is always
#: measured; the others hold the whole model in memory.
OBSERVE: Mapping[str, str] = {
    "activation": "calibrating",
    "taylor": "gradients",
    "depth": "skipping layers",
    "depth-iterative": "skipping layers",
}

#: Told what is being done, how much of it is done, and of how much.
Progress = Callable[[str, int, int], None]


def measure(
    model: Model,
    windows: torch.Tensor,
    observe: Sequence[str] = ("activation",),
    *,
    batch: int = 4,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    about: Mapping[str, Any] | None = None,
    journal: Path | None = None,
    spill: Path | None = None,
    allowed: Callable[[Sequence[int]], bool] = lambda kept: True,
    progress: Progress | None = None,
) -> Stats:
    """Statistics of ``windows`` (samples, tokens) for every name in ``observe``.

    ``journal``: a folder from which the streamed walk resumes; ``spill``: one for its hidden states. ``allowed``:
    whether layers may be kept alone, asked by the two that skip layers. Raises UsageError for a name that is not in
    ``OBSERVE``.
    """
    unknown = [name for name in observe if name not in OBSERVE]
    if unknown:
        raise UsageError(f"observe: {unknown[0]!r}, expected one of {', '.join(OBSERVE)}")

    def told(name: str) -> Callable[[int, int], None]:
        return lambda done, total: None if progress is None else progress(OBSERVE[name], done, total)

    on: dict[str, Any] = {"batch": batch, "dtype": dtype, "device": device}
    stats = calibrate(model, windows, **on, about=about, journal=journal, spill=spill, progress=told("activation"))
    if "taylor" in observe:
        stats = stats.adding(taylor.measure(model, windows, **on, progress=told("taylor")))
    skipping = [name for name in ("depth-iterative", "depth") if name in observe]
    if skipping:  # the iterative order begins with the one-shot costs
        iterative = skipping[0] == "depth-iterative"
        found = depth.measure(model, windows, **on, iterative=iterative, allowed=allowed, progress=told(skipping[0]))
        stats = stats.adding(found)
    return stats


__all__ = ["OBSERVE", "Progress", "measure"]
