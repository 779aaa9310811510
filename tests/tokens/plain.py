"""Methods and their effect written a second time, token by token, with no tensor operation that could hide a slip."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def cosine(a: list[float], b: list[float]) -> float:
    size = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / size


def pairs_of(row: Any, a: list[int], b: list[int], causal: bool = False) -> list[tuple[float, int, int]]:
    """(similarity, a, partner) of every a."""
    found = []
    for i in a:
        options = [(cosine(row.branch[i].tolist(), row.branch[j].tolist()), -j) for j in b if j > i or not causal]
        best, place = max(options)
        found.append((best, i, -place))
    return found


def utrc(row: Any, remove: int, prune: float = 0.5, causal: bool = False) -> list[tuple[int, int, bool]]:
    """(removed, partner, merged in the hidden branch) by the paper's steps."""
    n = len(row.importance)
    order = sorted(range(n - 1), key=lambda i: (float(row.importance[i]), i))
    a, b = order[: n // 2], order[n // 2 :] + [n - 1]
    best = sorted(pairs_of(row, a, b, causal), key=lambda p: -p[0])[:remove]
    by_importance = sorted(best, key=lambda p: (float(row.importance[p[1]]), p[1]))
    return [(i, j, k >= int(prune * remove)) for k, (_, i, j) in enumerate(by_importance)]


def pumer(row: Any, remove: int) -> list[tuple[int, int, bool]]:
    n = len(row.branch)
    a = [i for i in range(n) if (n - 1 - i) % 2 == 1]
    b = [i for i in range(n) if (n - 1 - i) % 2 == 0]
    return [(i, j, True) for _, i, j in sorted(pairs_of(row, a, b), key=lambda p: -p[0])[:remove]]


def stream(residual: Tensor, output: Tensor, gone: list[tuple[int, int, bool]], merge: bool = True) -> Tensor:
    """Residual and hidden branch reduced one after the other with the same pairs, then added, survivors in order."""
    hidden = output - residual
    rows = []
    removed = {i for i, _, _ in gone}
    for t in range(len(residual)):
        if t in removed:
            continue
        into = [(i, h) for i, j, h in gone if j == t and merge]
        r = torch.stack([residual[t], *(residual[i] for i, _ in into)]).mean(0)
        h = torch.stack([hidden[t], *(hidden[i] for i, merged in into if merged)]).mean(0)
        rows.append(r + h)
    return torch.stack(rows)
