"""Statistics of one calibration walk, and the file they are kept in."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from secateur.calibration.blocks import BlockInfluence
from secateur.calibration.channels import Channels
from secateur.calibration.experts import Experts
from secateur.calibration.observer import Observer
from secateur.calibration.spill import states
from secateur.calibration.states import States
from secateur.calibration.walker import Progress, walk
from secateur.checkpoint import CODES, TensorSpec, write_tensors
from secateur.checkpoint.store import SINGLE
from secateur.errors import CheckpointError, UsageError
from secateur.model import Model

FORMAT = "2"


@dataclass(frozen=True)
class Stats:
    """``tensors``: sums by name, ``"3/mixer.out_proj.weight/in/l2mean"``; ``about``: text, tokens, seed, and
    ``input_first``: tensors stored as (inputs, outputs).
    """

    config_sha256: str
    tensors: Mapping[str, torch.Tensor]
    about: Mapping[str, Any]

    def get(self, layer: int | None, tensor: str, side: str, what: str) -> NDArray[np.float64] | None:
        """One statistic as float64, or None when the walk did not meet it."""
        key = f"{'' if layer is None else layer}/{tensor}/{side}/{what}"
        return self.tensors[key].double().numpy() if key in self.tensors else None

    @property
    def tokens(self) -> int:
        """Tokens the statistics were taken on."""
        return int(self.about["tokens"])

    @property
    def input_first(self) -> frozenset[str]:
        """Tensors stored as (inputs, outputs), by their name inside a layer."""
        return frozenset(self.about.get("input_first", ()))

    def adding(self, tensors: Mapping[str, torch.Tensor]) -> Stats:
        """These statistics and more of the same model."""
        return Stats(self.config_sha256, {**self.tensors, **tensors}, self.about)

    def save(self, path: Path) -> None:
        """Write to ``path`` (safetensors), whole or not at all; with several processes the first one writes.

        The same statistics give the same bytes (safetensors' own writer shuffles what is noted beside the tensors).
        """
        if torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
            return
        note = {"format": FORMAT, "config_sha256": self.config_sha256, "about": json.dumps(dict(self.about))}
        tensors = dict(sorted(self.tensors.items()))
        specs = [TensorSpec(n, CODES[t.dtype], tuple(t.shape)) for n, t in tensors.items()]
        try:
            with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.absolute().parent) as folder:
                write_tensors(Path(folder), specs, lambda s: tensors[s.name], shard_bytes=1 << 62, metadata=note)
                Path(folder, SINGLE).replace(path)
        except (OSError, CheckpointError) as e:
            raise CheckpointError(f"cannot write statistics to {path}: {e}") from e


def load_stats(path: Path, model: Model) -> Stats:
    """Read statistics and check that they were taken on this model.

    Raises UsageError for a file that is none, or one of another model.
    """
    try:
        with safe_open(path, "pt") as f:
            note = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as e:
        raise UsageError(f"{path} holds no statistics: {e}", hint="make them with `secateur calibrate`") from e
    if note.get("format") != FORMAT:
        raise UsageError(f"{path} holds no secateur statistics of format {FORMAT}")
    if note.get("config_sha256") != model.config_sha256:
        raise UsageError(f"statistics {path} were taken on another model than {model.source}; calibrate this one")
    return Stats(note["config_sha256"], tensors, json.loads(note["about"]))


def calibrate(
    model: Model,
    windows: torch.Tensor,
    *,
    batch: int = 4,
    about: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    journal: Path | None = None,
    spill: Path | None = None,
    progress: Progress | None = None,
) -> Stats:
    """Walk ``windows`` (samples, tokens) through the model and collect what criteria score on.

    Memory: one block, the hidden states of all windows (with ``spill``, a folder, of one batch), a few vectors per
    layer. ``journal``: a folder from which an interrupted walk resumes. Under torchrun each rank takes a part.
    """
    check_windows(model, windows)
    channels = Channels()
    observers: list[Observer] = [channels, BlockInfluence(), Experts(), States()]
    batches = list(torch.split(windows, batch))
    with states(spill) as hidden:
        walk(model, batches, observers, dtype=dtype, device=device, journal=journal, hidden=hidden, progress=progress)
    tensors = {k: v.cpu() for o in observers for k, v in o.state.items()}
    facts: dict[str, Any] = {"samples": windows.shape[0], "length": windows.shape[1], "tokens": windows.numel()}
    facts["input_first"] = sorted(channels.input_first)
    return Stats(model.config_sha256, tensors, {**facts, **(about or {})})


def check_windows(model: Model, windows: torch.Tensor) -> None:
    """Raises UsageError for windows that are not (samples, tokens) of this model's vocabulary."""
    if windows.ndim != 2 or not windows.numel():
        raise UsageError(f"calibration windows have shape {tuple(windows.shape)}, expected (samples, tokens)")
    top = int(windows.max())
    if top >= model.anatomy.sizes["v"]:
        raise UsageError(f"token id {top} lies outside the vocabulary of {model.anatomy.sizes['v']}")
