"""One layer in place of several (LLM-Streamline, arXiv 2403.19135), trained on the stream alone.

    min over the layer's weights of  mean |layer(X_first) - X_{last + 1}|^2       AdamW, rate 2e-4 -> 5e-5

The layer begins as the window's first one. It is a layer of the same kind, so the result is a standard checkpoint. The
last batches of text are not trained on; the layer is taken as it was where it did best on those, which may be before
the first step.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.kernels import fast
from secateur.model import Model, open_model
from secateur.pruning.plan import make_plan
from secateur.pruning.removed import split
from secateur.pruning.run import prune
from secateur.search.removal.masked import MEASURES, Masked, Measure
from secateur.search.removal.places import Removal
from secateur.search.removal.silent import removed


@dataclass(frozen=True, slots=True)
class Lessons:
    """``steps`` of one batch each; the rate falls linearly. ``held``: share of the batches that judge, every ``check``
    steps."""

    steps: int = 200
    rate: float = 2e-4
    last_rate: float = 5e-5
    held: float = 0.25
    check: int = 25
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Replacement:
    """``layer`` stands at index ``first``; errors: mean squares on held-out batches before and after training."""

    first: int
    layer: nn.Module
    before: float
    after: float


def train(
    work: Masked,
    first: int,
    last: int,
    lessons: Lessons | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Replacement:
    """Layer ``first`` trained to do what layers ``first`` to ``last`` do. Raises UsageError with a single batch."""
    lessons = lessons or Lessons()
    n = len(work.batches)
    held = max(1, round(lessons.held * n))
    if held >= n:
        raise UsageError(f"a replacement needs text to train on and to judge by; there are {n} batches")
    pairs = [(*_call(work, b, first), work.streams(b)[last + 1]) for b in range(n)]
    layer = copy.deepcopy(work.layers[first]).requires_grad_(True)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=lessons.rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(lessons.seed)
    best, before = copy.deepcopy(layer.state_dict()), _error(layer, pairs[n - held :])
    lowest = before
    for step in range(lessons.steps):
        at = step / max(1, lessons.steps - 1)
        optimizer.param_groups[0]["lr"] = lessons.rate + at * (lessons.last_rate - lessons.rate)
        pair = pairs[int(torch.randint(n - held, (1,), generator=generator))]
        with fast(layer):
            loss = _squares(layer, *pair)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        progress(step + 1, lessons.steps)
        if (step + 1) % lessons.check == 0 or step + 1 == lessons.steps:
            error = _error(layer, pairs[n - held :])
            if error < lowest:
                lowest, best = error, copy.deepcopy(layer.state_dict())
    layer.load_state_dict(best)
    return Replacement(first, layer.requires_grad_(False), before, lowest)


Call = tuple[Tensor, tuple[Any, ...], dict[str, Any]]


@torch.no_grad()
def _call(work: Masked, b: int, layer: int) -> Call:
    """How the model calls a layer on a batch: (stream into it, other arguments, keyword arguments)."""
    seen: list[Call] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rest = {k: v for k, v in kwargs.items() if k != "hidden_states"}
        states = args[0] if args else kwargs["hidden_states"]
        seen.append((states, args[1:], rest))

    handle = work.layers[layer].register_forward_pre_hook(note, with_kwargs=True)
    try:
        with fast(work.whole):
            work.whole(work.batches[b], use_cache=False)
    finally:
        handle.remove()
    return seen[0]


def _squares(layer: nn.Module, states: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], target: Tensor) -> Tensor:
    out = layer(states, *args, **kwargs)
    found: Tensor = out[0] if isinstance(out, tuple) else out
    return (found - target).square().mean()


@torch.no_grad()
def _error(layer: nn.Module, pairs: list[Any]) -> float:
    with fast(layer):
        return sum(float(_squares(layer, *pair)) for pair in pairs) / len(pairs)


@contextlib.contextmanager
def placed(work: Masked, replacement: Replacement) -> Iterator[None]:
    """The model in memory with the replacement in its place."""
    original = work.layers[replacement.first]
    work.layers[replacement.first] = replacement.layer
    try:
        yield
    finally:
        work.layers[replacement.first] = original


@torch.no_grad()
def costs(work: Masked, removal: Removal, replacement: Replacement) -> dict[Measure, float]:
    """The measures of :class:`Masked` for the model without ``removal`` and with the replacement."""
    total = torch.zeros(len(MEASURES), dtype=torch.float64)
    for b, ids in enumerate(work.batches):
        reference = work.reference(b)
        with placed(work, replacement), fast(work.whole), removed(work.layers, work.anatomy, removal, work.arity):
            logits = work.whole(ids, use_cache=False).logits.float()
        total += len(ids) * reference.measures(logits)
    mean = total / sum(len(b) for b in work.batches)
    return dict(zip(MEASURES, mean.tolist(), strict=True))


def write(work: Masked, removal: Removal, replacement: Replacement, out: Path) -> Model:
    """The model without ``removal`` (whole layers) and with the replacement, as a checkpoint at ``out``; returns it
    opened. Takes the disk space of parent and child for a while."""
    from secateur.checkpoint import scratch

    layers, inside = split(removal, work.anatomy)
    if inside:
        raise UsageError(f"a replacement stands for whole layers; {', '.join(map(str, inside))} are parts of layers")
    with scratch(out) as beside:
        with placed(work, replacement):
            work.whole.save_pretrained(beside / "replaced")
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"):
            if (work.model.folder / name).is_file():
                (beside / "replaced" / name).write_bytes((work.model.folder / name).read_bytes())
        with open_model(beside / "replaced") as whole:
            return prune(whole, make_plan(whole, layers=layers), out)
