"""Zeros that `secateur sparsify` put into a student stay zero while it heals.

The mask is the weight itself: an entry that is zero when training begins, in a tensor the student's secateur.json
calls sparsified, has no gradient and is zero again after every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from secateur.train.export import on_disk


def sparsified(record: Mapping[str, Any] | None) -> frozenset[str]:
    """On-disk names of tensors that any step behind a checkpoint made sparse."""
    found: set[str] = set()
    while isinstance(record, Mapping):
        tensors = (record.get("audit") or {}).get("tensors") if record.get("step") == "sparsify" else None
        found |= {n for n, entry in (tensors or {}).items() if entry.get("action") == "sparsified"}
        record = record.get("before")
    return frozenset(found)


class Zeros:
    """Masks of the sparse parameters of a loaded ``student``; one byte for each of their entries.

    ``names``: on-disk names. transformers fuses some tensors when it loads: a parameter counts when any of the tensors
    it is stored as does.
    """

    def __init__(self, student: Any, names: frozenset[str]) -> None:
        self.masks: list[tuple[nn.Parameter, torch.Tensor]] = []
        for name, p in student.named_parameters() if names else ():
            if p.ndim >= 2 and not names.isdisjoint({name, *on_disk(student, {name: p.detach()})}):
                self.masks.append((p, p.detach() != 0))

    def __len__(self) -> int:
        """Parameters that hold zeros to keep."""
        return len(self.masks)

    @torch.no_grad()
    def gradients(self) -> None:
        """Masked entries pull nowhere: neither themselves nor the clipped norm of the others."""
        for p, mask in self.masks:
            if p.grad is not None:
                p.grad.mul_(mask)

    @torch.no_grad()
    def weights(self) -> None:
        """What momentum and decay did to masked entries is undone."""
        for p, mask in self.masks:
            p.mul_(mask)
