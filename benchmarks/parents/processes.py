"""One process, or as many as ``torchrun`` started; every function is the identity, or nothing, on one.

On a CPU several processes of one thread each beat one process of several threads: they meet once a step instead of in
every operation, which matters most on a machine that is busy with other work.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, distributed, nn


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Joins torchrun's group for the length of the block."""
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def device() -> torch.device:
    """A GPU of its own where there is one."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cuda")


def computes_in_bf16(device: torch.device, asked: str) -> bool:
    """``asked``: bf16, fp32 or auto. A CPU without bf16 instructions is slower in bf16 than in fp32 (hybrid: 0.43x)."""
    native = device.type != "cpu" or any(torch.cpu.get_capabilities().get(k) for k in ("amx_bf16", "avx512_bf16"))
    return native if asked == "auto" else asked == "bf16"


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """The first process runs the block before the others do."""
    if rank() != 0:
        distributed.barrier()
    yield
    if rank() == 0 and count() > 1:
        distributed.barrier()


def average_gradients(parameters: Sequence[nn.Parameter], loss: float) -> float:
    """Replaces all gradients by their means over the processes, in one message; returns the mean of the losses."""
    if count() == 1:
        return loss
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([g.reshape(-1) for g in grads] + [grads[0].new_tensor([loss])])
    distributed.all_reduce(flat)
    flat /= count()
    offset = 0
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = flat[offset : offset + grad.numel()].view_as(grad)
        offset += grad.numel()
    return flat[-1].item()


def total(values: Tensor) -> Tensor:
    """The sum of a CPU tensor over the processes."""
    if count() > 1:
        distributed.all_reduce(values)
    return values


def tell(*values: float) -> list[float]:
    """The first process's numbers, on every process."""
    told = torch.tensor(values, dtype=torch.float64)
    if count() > 1:
        distributed.broadcast(told, src=0)
    return told.tolist()
