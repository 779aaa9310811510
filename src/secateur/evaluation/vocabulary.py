"""Which token of the parent is which token of the child, read from what the trim recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch

from secateur.errors import UsageError
from secateur.model import Model
from secateur.pruning.keep import KeepSets
from secateur.pruning.provenance import FILE


def parent_rows(parent: Model, child: Model, parent_tokenizer: Any, child_tokenizer: Any) -> torch.Tensor | None:
    """(child's vocabulary,) int64: the parent's id of each id of the child; None where all are the same.

    Raises UsageError when the two do not share their tokens: then only bits per byte can compare them.
    """
    n, m = parent.anatomy.sizes["v"], child.anatomy.sizes["v"]
    rows = _recorded(parent, child)
    if rows is None and n != m:
        raise UsageError(
            f"{child.source} has {m} tokens and {parent.source} {n}, and no record says which is which",
            hint="compare them by bits per byte, which needs no common vocabulary",
        )
    known = parent_tokenizer.get_vocab()
    for token, i in child_tokenizer.get_vocab().items():
        own = i if rows is None else int(rows[i]) if i < m else -1
        if known.get(token) != own:
            raise UsageError(
                f"token {token!r} is {i} in {child.source} and {known.get(token, 'unknown')} in {parent.source}",
                hint="their tokenizers differ: compare them by bits per byte, which needs no common vocabulary",
            )
    return rows


def _recorded(parent: Model, child: Model) -> torch.Tensor | None:
    n, m = parent.anatomy.sizes["v"], child.anatomy.sizes["v"]
    path = child.folder / FILE
    if n == m or not path.is_file():
        return None
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as cause:
        raise UsageError(f"{path} cannot be read: {cause}") from cause
    for entry in _entries(document):
        kept = entry["kept"].get("v", {})
        before = entry.get("shape", {}).get("vocab", {}).get("before")
        if kept and before == n:
            rows = KeepSets.from_json(parent.anatomy, {"v": kept}).get("v", "", {})
            if len(rows) == m:
                return torch.from_numpy(rows.copy())
    return None


def _entries(value: Any) -> Iterator[dict[str, Any]]:
    """Every cut a record holds, also inside the records of later steps."""
    if isinstance(value, dict):
        if isinstance(value.get("kept"), dict):
            yield value
        for key, item in value.items():
            if key not in ("kept", "audit"):
                yield from _entries(item)
    elif isinstance(value, list):
        for item in value:
            yield from _entries(item)


__all__ = ["parent_rows"]
