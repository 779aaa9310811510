"""The whole model in memory, loaded by plain transformers: what gradients and skipped layers need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from secateur.calibration.skeleton import quiet
from secateur.checkpoint.quantized import dense_loading
from secateur.errors import CheckpointError
from secateur.model import Model


def load_whole(model: Model, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """The model in evaluation mode. Memory: all its parameters in ``dtype``."""
    from transformers import AutoModelForCausalLM

    if model.store is None:
        raise CheckpointError(f"{model.source}: this needs weights, but there is only a config.json")
    # grouped matrix kernels know no float64
    experts = {"experts_implementation": "eager"} if dtype == torch.float64 else {}
    with quiet():
        dense = dense_loading(model.raw)
        loaded: Any = AutoModelForCausalLM.from_pretrained(model.folder, dtype=dtype, **experts, **dense)
    return loaded.to(device).eval()


def decoder_layers(whole: nn.Module, count: int) -> nn.ModuleList:
    """The list of ``count`` decoder layers."""
    found = next((m for m in whole.modules() if isinstance(m, nn.ModuleList) and len(m) == count), None)
    if found is None:
        raise CheckpointError(f"{type(whole).__name__} holds no list of {count} layers")
    return found


def next_token_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats of each token given those before it. Shapes (b, t, v) and (b, t)."""
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
