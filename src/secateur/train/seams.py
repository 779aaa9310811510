"""Which hidden states to compare after a depth cut, and a first guess of the projection between widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from secateur.errors import UsageError

Pairs = tuple[tuple[int, int], ...]


def layer_pairs(record: Mapping[str, Any] | None, student_layers: int, teacher_layers: int, told: Pairs) -> Pairs:
    """Layers (student, teacher) whose outputs should agree.

    As ``told``; else, from the student's record of its cut, the seams: where layers were dropped, the layer before
    the gap should now put out what the last dropped one did, for that is what the next layer was trained on. Without
    a gap, all layers. UsageError when the record says nothing, or a pair does not exist.
    """
    kept = range(teacher_layers) if student_layers == teacher_layers else kept_layers(record)
    if told:
        for mine, its in told:
            if not (0 <= mine < student_layers and 0 <= its < teacher_layers):
                raise UsageError(
                    f"hidden_layers: {mine}:{its}, but the student has layers 0 to {student_layers - 1} "
                    f"and the teacher 0 to {teacher_layers - 1}"
                )
        return told
    if kept is None or len(kept) != student_layers or max(kept) >= teacher_layers:
        raise UsageError(
            f"the student has {student_layers} layers, the teacher {teacher_layers}, and the student's "
            "secateur.json does not say which were kept",
            hint="name the pairs of layers yourself: --hidden-layers 3:5,7:11",
        )
    ends = [*(k - 1 for k in kept[1:]), teacher_layers - 1]
    pairs = tuple(enumerate(ends))
    seams = tuple((mine, its) for mine, its in pairs if its != kept[mine])
    return seams or pairs


def kept_layers(record: Mapping[str, Any] | None) -> Sequence[int] | None:
    """The teacher's layers that live on in the student, from the nearest cut in its history."""
    while record is not None:
        if record.get("step") == "prune":
            return list(record["layers"]["kept"])
        record = record.get("before")
    return None


def projections(pairs: Pairs, student_width: int, teacher_width: int) -> nn.ModuleList | None:
    """A linear map per pair, trained along and dropped afterwards; None for equal widths. It starts as the identity
    on the channels both have."""
    if student_width == teacher_width:
        return None
    maps = [nn.Linear(student_width, teacher_width, bias=False) for _ in pairs]
    with torch.no_grad():
        for layer in maps:
            layer.weight.copy_(torch.eye(teacher_width, student_width))
    return nn.ModuleList(maps)
