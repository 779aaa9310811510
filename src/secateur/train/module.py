"""Student and teacher as one module whose forward is the loss.

One module, because FSDP gathers parameters for the length of its root's forward: the heads are used inside the loss, so
the loss has to be inside the forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateur.train.chunked import chunked_loss
from secateur.train.distribution import TopK, log_probs, lump, outcomes
from secateur.train.losses import DIVERGENCES, HIDDEN, cross_entropy
from secateur.train.losses.cross_entropy import IGNORE
from secateur.train.settings import Settings
from secateur.train.split import Split

PARTS = ("divergence", "ce", "hidden")


class Distiller(nn.Module):
    """``teacher`` is None for cross-entropy alone and for a cached one. ``pairs``: layers (student, teacher) whose
    outputs the hidden-state loss compares, through ``projections`` where widths differ."""

    def __init__(
        self,
        student: Any,
        teacher: Any,
        settings: Settings,
        pairs: Sequence[tuple[int, int]] = (),
        projections: nn.ModuleList | None = None,
    ) -> None:
        super().__init__()
        self.student, self.teacher, self.projections = student, teacher, projections
        self.settings, self.pairs = settings, tuple(pairs)
        self._halves = Split(student), None if teacher is None else Split(teacher)
        # what accelerate wraps one by one under FSDP
        models = [m for m in (student, teacher) if m is not None]
        self._no_split_modules = sorted({n for m in models for n in getattr(m, "_no_split_modules", None) or ()})
        if teacher is not None:
            teacher.requires_grad_(False)

    def train(self, mode: bool = True) -> Distiller:
        """Both models stay in evaluation mode: the student learns the teacher's function, which has no dropout, and
        transformers' training-only code of Mamba-2 goes round the fast paths."""
        super().train(mode)
        for model in filter(None, (self.student, self.teacher)):
            model.eval()
        return self

    def tie_weights(self) -> None:
        for model in (self.student, self.teacher):
            if model is not None:
                model.tie_weights()

    def forward(self, ids: Tensor, cached: TopK | None = None) -> tuple[Tensor, Tensor]:
        """(loss, its parts as in PARTS, unweighted and per token) of windows ``ids`` (b, t)."""
        half, other = self._halves
        states, depth = half.hidden(ids, layers=bool(self.pairs))
        with torch.no_grad():
            seen, deep = (None, ()) if other is None else other.hidden(ids, layers=bool(self.pairs))
        truth = None if seen is None else seen.flatten(0, 1)
        labels = next_tokens(ids)
        counted = (labels != IGNORE).sum()

        def loss(hidden: Tensor, at: slice) -> tuple[Tensor, Tensor]:
            logits = half.logits(hidden)
            divergence = self._divergence(logits, truth, cached, at) / len(labels)
            ce = cross_entropy(log_probs(logits), labels[at]).sum() / counted
            share, scale = self.settings.ce, self.settings.temperature**2
            total = (
                ce
                if share == 1
                else scale * divergence
                if share == 0
                else share * ce + (1 - share) * scale * divergence
            )
            return total, torch.stack([divergence.detach(), ce.detach(), torch.zeros_like(ce)])

        total, parts = chunked_loss(states.flatten(0, 1), half.head(), loss, chunk=self.settings.chunk)
        if self.pairs:
            apart = self._hidden(depth, deep)
            total = total + self.settings.hidden_weight * (total.detach() / apart.detach().clamp_min(1e-12)) * apart
            parts = parts + torch.stack([parts.new_zeros(()), parts.new_zeros(()), apart.detach()])
        for split in filter(None, self._halves):
            split.forget()
        return total, parts

    def _divergence(self, logits: Tensor, truth: Tensor | None, cached: TopK | None, at: slice) -> Tensor:
        """Sum over the tokens ``at`` of the divergence from whichever teacher there is."""
        divergence, temperature = DIVERGENCES[self.settings.loss], self.settings.temperature
        if cached is not None:
            top = cached[at]
            student = lump(log_probs(logits, temperature), top.ids)
            return divergence(student, outcomes(top, logits.shape[-1])).sum()
        if truth is None:
            return torch.zeros((), device=logits.device)
        other = self._halves[1]
        assert other is not None
        with torch.no_grad():
            teacher = log_probs(other.logits(truth[at]), temperature)
        return divergence(log_probs(logits, temperature), teacher).sum()

    def _hidden(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        """Mean over the layer pairs. Element i + 1 of the states is the output of layer i."""
        assert self.settings.hidden is not None
        measure, found = HIDDEN[self.settings.hidden], []
        for at, (mine, its) in enumerate(self.pairs):
            state = student[mine + 1].flatten(0, 1)
            if self.projections is not None:
                state = self.projections[at](state)
            found.append(measure(state, teacher[its + 1].flatten(0, 1)))
        return torch.stack(found).mean()


def next_tokens(ids: Tensor) -> Tensor:
    """(b * t,) labels of windows (b, t): the token that follows, IGNORE at the end of each window."""
    return torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], IGNORE)], dim=1).flatten()
