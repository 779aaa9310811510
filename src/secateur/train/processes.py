"""The processes of a run: one, several with a copy each, or FSDP shards, as the launcher says."""

from __future__ import annotations

from typing import Any

import torch

from secateur.errors import UsageError
from secateur.evaluation.load import Place


def join(*, bf16: bool, device: str = "auto") -> Any:
    """accelerate's Accelerator for this process, on the accelerator there is, or where ``device`` says.

    UsageError for a device that is not there, and under FSDP of the first generation, whose shards are no tensors that
    could be saved one at a time.
    """
    from accelerate import Accelerator

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"device {device!r}: expected auto, cpu or cuda", hint="choose among GPUs with CUDA_VISIBLE_DEVICES"
        )
    if device == "cuda":
        Place(device, "float32").resolved()

    # without cpu=True accelerate joins no process group on machines that have no accelerator
    alone = device == "cpu" or not torch.accelerator.is_available()
    accelerator = Accelerator(cpu=alone, mixed_precision="bf16" if bf16 else "no")
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None:
        if plugin.fsdp_version != 2:
            raise UsageError(
                f"FSDP version {plugin.fsdp_version} is asked for, expected 2",
                hint="accelerate launch --use_fsdp --fsdp_version 2, or fsdp_version: 2 in its config file",
            )
        if bf16:
            from torch.distributed.fsdp import MixedPrecisionPolicy

            # accelerate's own policy also sums gradients and returns the loss in bfloat16
            plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return accelerator


def leave(accelerator: Any) -> None:
    """Forget models and precision, so that the next run in this process may ask for another."""
    from accelerate.state import AcceleratorState

    accelerator.free_memory()
    AcceleratorState._reset_state()
