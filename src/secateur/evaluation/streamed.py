"""A model larger than memory, measured like one that is loaded: text goes through it block by block first.

:class:`Streamed` stands where a loaded model stands. Told all batches of token ids it will be asked about, it walks
them through the blocks once and keeps the last hidden states (on disk where asked); logits are then made slice by slice
from those, with only the head in memory. Recurrent layers run on the fast kernels, as everywhere the walker is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from secateur.calibration.spill import states
from secateur.calibration.walker import Walk, walk
from secateur.errors import SecateurError, UsageError
from secateur.evaluation.load import DTYPES, Place
from secateur.evaluation.memory import available
from secateur.model import Model

SHARE = 0.8
"""Of the memory at hand that loaded models may take before they are streamed instead."""


@dataclass(frozen=True, slots=True)
class Streaming:
    """``journal``: a folder an interrupted measurement resumes from. ``spill``: where hidden states lie on disk."""

    journal: Path | None = None
    spill: Path | None = None


class Streamed:
    """One model in ``place``. :meth:`prepare` comes first; :meth:`slices` then knows those batches and no others."""

    def __init__(
        self, model: Model, place: Place, how: Streaming, hidden: Callable[[], MutableSequence[torch.Tensor]]
    ) -> None:
        self.config: Any = model.anatomy.config.object
        self.device = torch.device(place.device)
        self._model, self._place, self._how, self._fresh = model, place, how, hidden
        self._walked: Walk | None = None
        self._batches: list[torch.Tensor] = []
        self.told: Callable[[int, int], None] | None = None

    def prepare(self, batches: Sequence[torch.Tensor]) -> None:
        """Walk token ids (batch, tokens) through the model, unless they are those of the last time."""
        ids = [b.cpu() for b in batches]
        if len(ids) == len(self._batches) and all(torch.equal(a, b) for a, b in zip(ids, self._batches, strict=True)):
            return
        self._walked, self._batches = None, ids  # the old head goes before the new blocks come
        dtype = DTYPES[self._place.dtype]
        self._walked = walk(
            self._model, ids, [], dtype=dtype, device=self._place.device, journal=self._folder, keep=True,
            hidden=self._fresh(), progress=self.told,
        )  # fmt: skip

    def slices(self, ids: torch.Tensor, start: int, width: int) -> Iterator[torch.Tensor]:
        """Logits (batch, at most width, vocabulary) float32 of positions ``start``.. in order."""
        own = ids.cpu()
        at = next((i for i, b in enumerate(self._batches) if torch.equal(b, own)), None)
        if at is None or self._walked is None:
            raise SecateurError("a streamed model was asked about text that it has not read")
        hidden = self._walked.hidden[at]
        for here in range(start, own.shape[1], width):
            yield self._walked.head(hidden[:, here : here + width]).float()

    def forget(self) -> None:
        """The measurement is done: the journal is of no further use."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _folder(self) -> Path | None:
        name = hashlib.sha256(str(self._model.folder.resolve()).encode()).hexdigest()[:16]
        return None if self._how.journal is None else self._how.journal / f"eval-{name}"


@contextlib.contextmanager
def streamed(model: Model, place: Place, how: Streaming) -> Iterator[Streamed]:
    """``model`` as it is measured without being loaded, inside the block."""
    with contextlib.ExitStack() as stack:
        made = Streamed(model, place.resolved(), how, lambda: stack.enter_context(states(how.spill)))
        yield made


def too_large(models: Sequence[Model], parent: Model | None, place: Place) -> bool:
    """Whether loading what :func:`evaluate` holds at a time would take more than memory has."""
    each = [m.anatomy.count() * DTYPES[place.dtype].itemsize for m in models]
    need = max(each, default=0) + (0 if parent is None else parent.anatomy.count() * DTYPES[place.dtype].itemsize)
    free = torch.cuda.mem_get_info(place.device)[0] if place.device.startswith("cuda") else available()
    return free is not None and need > SHARE * free


def check(*, prompts: int, speed: bool, reduction: bool) -> None:
    """UsageError for what cannot be measured on a model that is not in memory."""
    for asked, name in ((prompts, "--samples"), (speed, "--speed"), (reduction, "--reduce-tokens")):
        if asked:
            raise UsageError(
                f"{name} needs the whole model in memory, and this one is streamed",
                hint=f"leave out {name}, or measure with --no-stream where there is more memory",
            )


__all__ = ["Streamed", "Streaming", "check", "streamed", "too_large"]
