"""LLM-Streamline (arXiv 2403.19135): the contiguous layers whose absence turns the stream least, or one in their place.

    l* = argmax over l of  mean over tokens of cos(X_l, X_{l+n})           X_l: the stream into layer l

Without a replacement layers l*, ..., l* + n - 1 go. With one, a window of n + 1 layers becomes a single layer: its
first, trained on  |layer(X_l) - X_{l+n+1}|^2  (:mod:`secateur.search.removal.replacement`), so that n layers fewer are
left either way.

Against the published code: windows that leave layers the config cannot say are passed over.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.errors import BudgetError
from secateur.pruning.choose import can_keep
from secateur.pruning.removed import LAYER, Unit
from secateur.search.arena import Arena
from secateur.search.outcome import Outcome
from secateur.search.removal.arena import Budgeted, in_memory, outcome
from secateur.search.removal.found import Found, found
from secateur.search.removal.masked import Masked, Measure


def cosines(work: Masked, n: int) -> Tensor:
    """Mean cosine of the stream before and behind every window of ``n`` layers, (layers - n + 1,) float64."""
    total = torch.zeros(work.anatomy.n_layers - n + 1, dtype=torch.float64)
    for b in range(len(work.batches)):
        streams = work.streams(b)
        for i in range(len(total)):
            a, z = streams[i].double(), streams[i + n].double()
            total[i] += torch.nn.functional.cosine_similarity(a, z, dim=-1).sum()
    return total / sum(b.numel() for b in work.batches)


def find(work: Masked, count: int, *, replace: bool = False, measure: Measure = "kl") -> Found:
    """``count`` layers that go: a whole window, or with ``replace`` all of a window but its first layer.

    Raises BudgetError when the config can say none.
    """
    n = work.anatomy.n_layers
    width = count + replace
    if not 1 <= count < n or width > n:
        raise BudgetError(f"{count} of {n} layers cannot go; at least one must stay")
    scores = cosines(work, width)
    able = [i for i in range(len(scores)) if can_keep(work.model, _left(n, i + replace, i + width))]
    if not able:
        raise BudgetError(f"the config can say no model without {count} layers in a row")
    first = max(able, key=lambda i: float(scores[i]))
    gone = frozenset(Unit(i, LAYER) for i in range(first + replace, first + width))
    details = {"window": [first, first + width - 1], "cosine": float(scores[first])}
    return found(work, gone, measure, len(scores), details=details)


def _left(layers: int, start: int, stop: int) -> list[int]:
    return [i for i in range(layers) if not start <= i < stop]


def search(arena: Arena) -> Outcome:
    """The shortest window without which the budget of a search is kept; a replacement is not trained."""
    work, ground, n = in_memory(arena), Budgeted(arena), arena.model.anatomy.n_layers
    for count in range(1, n):
        gone = find(work, count)
        choice = tuple(int(p.levels[0] in gone.removal) for p in ground.places)
        if ground.removal(choice) == gone.removal and ground.fits(choice) and ground.can_say(gone.removal):
            return outcome(arena, gone)
    raise ground.short(ground.nothing)
