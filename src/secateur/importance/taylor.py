"""First-order Taylor: what the loss would change by if a unit's weights went to zero.

Papers: Molchanov et al. (arXiv 1906.10771) for the criterion, LLM-Pruner (arXiv 2305.11627) for groups of weights.

Glossary: ``g`` gradient of the mean next-token loss over one batch of windows, ``W`` every matrix a unit runs through.

    score[u] = mean over batches of | sum over W of sum of (W * g)[entries of u] |

The sum keeps signs inside a unit, since its weights go together, and drops them between batches. Needs the whole model
and its gradients in memory, in ``dtype`` each; the other criteria stream. One process. Shapes: (old sizes of the axis'
parents ..., old size).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch

from secateur.anatomy.anatomy import Anatomy
from secateur.calibration.stats import Stats, check_windows
from secateur.errors import UsageError
from secateur.importance.base import Reader, Scores, Slots
from secateur.importance.units import Vector, plain_sums, sum_units
from secateur.importance.whole import load_whole, next_token_loss
from secateur.kernels import fast
from secateur.model import Model

Progress = Callable[[int, int], None]


def measure(
    model: Model,
    windows: torch.Tensor,
    *,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, torch.Tensor]:
    """Statistics ``"<scope>/taylor/<axis>/effect"`` for every axis of the layers, to be added to a :class:`Stats`.

    ``windows``: token ids (samples, tokens).
    """
    check_windows(model, windows)
    whole = load_whole(model, dtype=dtype, device=device)
    axes = [a for a in model.anatomy.parents if a != "v"]
    total: dict[tuple[str, str], Vector] = {}
    batches = list(torch.split(windows, batch))
    for done, ids in enumerate(batches, 1):
        for key, effect in _effects(model, whole, ids.to(device), axes).items():
            total[key] = total.get(key, np.zeros_like(effect)) + np.abs(effect) / len(batches)
        if progress is not None:
            progress(done, len(batches))
    return {f"{scope}/taylor/{axis}/effect": torch.from_numpy(v) for (axis, scope), v in total.items()}


def _effects(model: Model, whole: torch.nn.Module, ids: torch.Tensor, axes: list[str]) -> dict[tuple[str, str], Vector]:
    """Signed sums of weight times gradient per unit for one batch."""
    from transformers.core_model_loading import revert_weight_conversion

    whole.zero_grad(set_to_none=True)
    with torch.enable_grad(), fast(whole):
        loss = next_token_loss(whole(ids, use_cache=False).logits, ids)
        torch.autograd.backward(loss)
    products = {n: p.grad.mul_(p.detach()) for n, p in whole.named_parameters() if p.grad is not None}
    on_disk = dict(revert_weight_conversion(whole, products))
    names = model.anatomy.with_root(list(on_disk))
    return sum_units(names, axes, on_disk.get, plain_sums)


def score(anatomy: Anatomy, stats: Stats, axes: Iterable[str], sizes: Mapping[str, int], read: Reader) -> Scores:
    """Scores from statistics that :func:`measure` made. Raises UsageError when there are none."""
    out = {}
    for axis in axes:
        for scope in Slots.of(anatomy, axis).scopes:
            found = stats.tensors.get(f"{scope}/taylor/{axis}/effect")
            if found is None:
                raise UsageError(
                    f"the statistics hold no gradients for axis {axis!r}",
                    hint="calibrate again with --gradients, which needs the whole model in memory",
                )
            out[axis, scope] = found.double().numpy()
    return out
