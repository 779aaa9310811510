"""One location at work on a batch: every row loses what it would lose alone, whatever its padding.

A row of m real tokens keeps kept(m, ratio) of them. Rows stay rectangular: the row that keeps most sets the length, the
others keep so much more of their padding, the nearest to their tokens. That always suffices, for kept() grows by at
most one per token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.tokens.choice import Choice, Method, Options, Row, kept, reduced


def location(
    method: Method,
    ratio: float,
    options: Options,
    residual: Tensor,
    output: Tensor,
    importance: Tensor | None,
    candidates: Tensor,
    padding: Tensor,
) -> tuple[Tensor, Tensor]:
    """(stream behind the location (b, n', d), kept columns (b, n')).

    ``residual`` and ``output`` (b, n, d) before and behind the block; ``importance`` (b, n) for methods that read it;
    ``candidates`` and ``padding`` (b, n): tokens of the prompt, and what is none. The last candidate of a row stays.
    """
    counts = candidates.sum(1).tolist()
    keeps = [kept(m, ratio) if m else 0 for m in counts]
    others = (~candidates & ~padding).sum(1).tolist()
    length = max(k + o for k, o in zip(keeps, others, strict=True))
    columns, streams = [], []
    for i, (m, k) in enumerate(zip(counts, keeps, strict=True)):
        row = candidates[i].nonzero()[:, 0]
        choice = _choice(method, options, row, m - k, residual[i], output[i], importance, i)
        stays = ~padding[i]
        stays[choice.removed] = False
        spare = _nearest_padding(padding[i])[: length - int(stays.sum())]
        stays[spare] = True
        keep = stays.nonzero()[:, 0]
        columns.append(keep)
        streams.append(reduced(choice, residual[i], output[i], keep))
    return torch.stack(streams), torch.stack(columns)


def _choice(
    method: Method,
    options: Options,
    row: Tensor,
    remove: int,
    residual: Tensor,
    output: Tensor,
    importance: Tensor | None,
    i: int,
) -> Choice:
    """The method's choice on the tokens ``row`` (m,) alone, in columns of the batch."""
    wide = torch.promote_types(output.dtype, torch.float32)
    if remove == 0:
        none, no = row[:0], torch.zeros(0, dtype=torch.bool, device=row.device)
        return Choice(none, none, no, no)
    branch = output[row].to(wide) - residual[row].to(wide) if method.matches else output[row][:, :1].to(wide)
    scores = torch.zeros(len(row), dtype=wide, device=row.device) if importance is None else importance[i, row]
    found = method.choose(Row(scores, branch), remove, options)
    weight = None if found.weight is None else torch.ones(len(output), dtype=wide, device=row.device)
    if weight is not None and found.weight is not None:
        weight[row] = found.weight.to(wide)
    return Choice(row[found.removed], row[found.target], found.hidden, found.residual, weight)


def _nearest_padding(padding: Tensor) -> Tensor:
    """Columns of padding: before the tokens from right to left, then behind them from left to right."""
    columns = padding.nonzero()[:, 0]
    real = (~padding).nonzero()[:, 0]
    first = int(real[0]) if len(real) else len(padding)
    return torch.cat([columns[columns < first].flip(0), columns[columns >= first]])


__all__ = ["location"]
