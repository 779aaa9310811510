"""This process among those that torchrun started; alone without it."""

from __future__ import annotations

from typing import TypeVar

import torch

T = TypeVar("T")


def world() -> int:
    """How many processes search together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """The number of this one, from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def wait() -> None:
    """Until all are here."""
    if world() > 1:
        torch.distributed.barrier()


def gathered(found: T) -> list[T]:
    """What every process found, by its number."""
    if world() == 1:
        return [found]
    every: list[T | None] = [None] * world()
    torch.distributed.all_gather_object(every, found)
    return [value for value in every if value is not None]
