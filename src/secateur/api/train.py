"""Heal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.api.common import Source, Text, texts_of

if TYPE_CHECKING:
    from secateur.model import Model
    from secateur.train.run import Reporter


def distill(
    student: Source,
    text: Text,
    *,
    tokens: int | str,
    out: str | Path,
    teacher: Source | None = None,
    correct_teacher: int | str = 0,
    eval_text: Text | None = None,
    eval_every: int | None = None,
    work: str | Path | None = None,
    cache: str | Path | None = None,
    overwrite: bool = False,
    restart: bool = False,
    tensorboard: bool = False,
    device: str = "auto",
    reporter: Reporter | None = None,
    **settings: Any,
) -> Model:
    """Train ``student`` on ``tokens`` ("20M") of ``text`` to agree with ``teacher``; returns the healed checkpoint.

    ``teacher`` may be left out with ``ce=1``. ``correct_teacher``: tokens to train the teacher itself on first.
    ``eval_text``: held-out text whose loss (nats per token) is logged before the first step, every ``eval_every`` steps
    (a twentieth of the run when None) and at the end; the steps are those of a run without it.
    ``work``: folder of the unfinished run, ``out`` + ".work" when not given; the same call resumes there on the same
    curve, and ``restart`` throws it away. ``cache``: folder for a teacher written to disk (with ``top_k``).
    ``device``: auto, cpu or cuda.
    Other keyword arguments are the fields of :class:`secateur.train.Settings`: length, batch, lr, loss, ce, bf16, ...

    Raises UsageError for what does not fit together, CheckpointError for the disk, TrainingError when the loss is not
    finite; the last saved state stays in the work folder.
    """
    from secateur.train import HeldOut, Places, Settings, token_count
    from secateur.train import distill as run

    measured = eval_text is not None or eval_every is not None
    held_out = HeldOut(texts=tuple(texts_of(eval_text or ())), every=eval_every) if measured else None
    places = Places(
        out=Path(out),
        work=None if work is None else Path(work),
        cache=None if cache is None else Path(cache),
        overwrite=overwrite,
        restart=restart,
        tensorboard=tensorboard,
    )
    return run(
        student,
        teacher,
        texts_of(text),
        Settings(tokens=token_count(tokens, "tokens"), **settings),
        places,
        correct_teacher=token_count(correct_teacher, "correct_teacher") if correct_teacher else 0,
        held_out=held_out,
        device=device,
        reporter=reporter,
    )
