"""Several processes on one walk, as torchrun starts them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, TypeVar

import torch
from torch import distributed

from secateur.errors import SecateurError

T = TypeVar("T")
LAST_TENSORS = 0.1
"""Seconds."""


@contextlib.contextmanager
def joined(device: str = "cpu") -> Iterator[None]:
    """Join the other ranks when torchrun started this process; otherwise nothing happens."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _joined():
        yield
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield
    finally:
        leave()


def leave() -> None:
    """Out of the group, from where the process may end at once.

    A worker of gloo frees the tensors of the last collective a moment after that has returned, and needs the
    interpreter for it; one that has begun to shut down aborts the process (SIGABRT, "terminate called without an
    active exception").
    """
    if distributed.get_backend() == "gloo":
        time.sleep(LAST_TENSORS)
    distributed.destroy_process_group()


def rank_and_world() -> tuple[int, int]:
    """(this process, of how many)."""
    return (distributed.get_rank(), distributed.get_world_size()) if _joined() else (0, 1)


def everyone(value: T) -> list[T]:
    """What each process has, in their order."""
    if not _joined():
        return [value]
    found: list[Any] = [None] * distributed.get_world_size()
    together(lambda: distributed.all_gather_object(found, value))
    return found


def agreed(value: T) -> T:
    """What the first process has."""
    if not _joined():
        return value
    box: list[Any] = [value]
    together(lambda: distributed.broadcast_object_list(box, src=0))
    return box[0]  # type: ignore[no-any-return]


def add_up(sums: MutableMapping[str, torch.Tensor]) -> None:
    """Sum every entry over all processes, also those that only some of them have (an expert met on one's text)."""
    if not _joined():
        return
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    for theirs in everyone({k: (tuple(v.shape), v.dtype) for k, v in sums.items()}):
        shapes |= theirs
    device = next((v.device for v in sums.values()), torch.device("cpu"))
    for key in sorted(shapes):
        shape, dtype = shapes[key]
        total = sums[key] if key in sums else torch.zeros(shape, dtype=dtype, device=device)
        total = total.contiguous()
        together(lambda total=total: distributed.all_reduce(total))  # type: ignore[misc]
        sums[key] = total


def together(call: Callable[[], object]) -> None:
    """A collective call. SecateurError when another process is gone: gloo and nccl say that in many words."""
    try:
        call()
    except RuntimeError as cause:
        rank, world = rank_and_world()
        raise SecateurError(
            f"process {rank} of {world}: another process of this run has ended ({str(cause).splitlines()[0][:200]})",
            hint="its own message says why; the same command, with as many processes, goes on where --journal says",
        ) from cause


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


__all__ = ["add_up", "agreed", "everyone", "joined", "rank_and_world", "together"]
