"""A training run on disk: one file that is either the old state or the new one, whatever kills the process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from secateur.errors import CheckpointError


@dataclass
class State:
    """Everything a resumed run needs; the order of the data is a function of seed and position and needs no state."""

    step: int
    rows: int
    """Rows dealt out so far, over all processes."""
    schedule: dict[str, Any]
    decayed: bool
    """Whether the last step ran under a falling rate."""
    identity: dict[str, Any]
    """What must not change between an interrupted run and its continuation."""
    model: dict[str, Any]
    optimizer: dict[str, Any]


def save(state: State, path: Path) -> None:
    """Writes beside ``path``, syncs, and moves into place."""
    staging = path.with_suffix(".tmp")
    with staging.open("wb") as file:
        torch.save(vars(state), file)
        file.flush()
        os.fsync(file.fileno())
    staging.replace(path)


def load(path: Path, identity: dict[str, Any]) -> State:
    """Raises CheckpointError where the run at ``path`` was started with other settings."""
    state = State(**torch.load(path, map_location="cpu", weights_only=True))
    for key, value in identity.items():
        if state.identity.get(key) != value:
            raise CheckpointError(
                f"{path} was trained with {key} = {state.identity.get(key)}, now it is {value}",
                hint="repeat the old setting to continue, or name another --work folder to start anew",
            )
    return state
