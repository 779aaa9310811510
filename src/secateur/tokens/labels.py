"""Labels of a reduced prompt: each survivor answers for the token that really followed it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from secateur.errors import UsageError
from secateur.evaluation.windows import IGNORE


def answering(reducing: Any, hook: Callable[[Any], None]) -> None:
    """Take ``labels`` out of calls of the causal model and put the survivors' loss into what it returns."""
    taken: list[Tensor | None] = [None]

    def before(network: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        taken[0] = kwargs.get("labels")
        return None if taken[0] is None else (args, {**kwargs, "labels": None})

    def behind(network: Any, args: Any, out: Any) -> Any:
        labels, taken[0] = taken[0], None
        if labels is None:
            return None
        if isinstance(out, tuple):
            raise UsageError("labels under token reduction need a model output, not a tuple", hint="return_dict=True")
        next_ones = following(labels, reducing.positions)
        vocabulary = network.config.get_text_config().vocab_size
        out.loss = network.loss_function(
            logits=out.logits, labels=None, vocab_size=vocabulary, shift_labels=next_ones.contiguous()
        )
        return out

    hook(reducing.network.register_forward_pre_hook(before, with_kwargs=True))
    hook(reducing.network.register_forward_hook(behind))


def following(labels: Tensor, positions: Tensor | None) -> Tensor:
    """The token after each survivor: labels (b, t), positions (b, n) or None (all) -> (b, n), IGNORE after the last."""
    shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE)
    return shifted if positions is None else shifted.gather(1, positions.to(labels.device))


__all__ = ["answering", "following"]
