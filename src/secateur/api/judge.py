"""Measure what came of it, and show it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.api.common import Progress, Source, Text, file_to_write, opening, several, texts_of
from secateur.errors import UsageError

if TYPE_CHECKING:
    from secateur.evaluation.equality import Equality
    from secateur.evaluation.results import Settings as Measuring
    from secateur.reporting import Collected
    from secateur.tokens.settings import TokenReduction


def evaluate(
    models: Source | Sequence[Source],
    text: Text,
    *,
    parent: Source | None = None,
    limit: int | str | None = None,
    window: int = 0,
    stride: int = 0,
    batch: int = 8,
    samples: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    fast: bool = False,
    speed: bool = False,
    rounds: int = 5,
    reduce_tokens: TokenReduction | float | None = None,
    stream: bool | None = None,
    journal: str | Path | None = None,
    spill: str | Path | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Loss (nats per token), perplexity and bits per byte of ``models`` on ``text``; with a ``parent`` also KL, JS and
    top-1 agreement, and sizes, speed and memory as ratios to it.

    ``limit``: bytes of each text that are read ("200kB"). ``window``: tokens a window holds, 0: 1,024 or what every
    model can read; ``stride``: new tokens a window scores, 0: all. ``samples``: texts to write from the same prompts.
    ``speed``: measured over ``rounds`` rounds in turns. ``fast``: recurrent layers on the fast kernels. ``out``: a file
    for the document, which :func:`report` reads. At most two models are in memory at a time. ``reduce_tokens``: measure
    every model with reduced prompts as well, 0.8: at that share of a prompt's operations. All models are then scored on
    windows that slide by half their length, whose first half is the prompt. ``stream``: through one block at a time,
    for models larger than memory; when they are, if nothing is said. An interrupted streamed measurement resumes from
    the folder ``journal``; in ``spill`` hidden states lie on disk instead of in memory.

    Returns the document described in :mod:`secateur.evaluation.results`. Raises UsageError for text, windows or
    devices that cannot be used.
    """
    from secateur.checkpoint import write_json
    from secateur.evaluation.results import evaluate as run
    from secateur.evaluation.streamed import Streaming

    path = None if out is None else file_to_write(out)
    settings = _measuring(
        limit, window, stride, batch, samples, device, dtype, fast, speed, rounds, reduce_tokens, stream
    )
    streaming = Streaming(*(None if p is None else Path(p) for p in (journal, spill)))
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(opening(m)) for m in several(models)]
        above = None if parent is None else stack.enter_context(opening(parent))
        found = run(opened, texts_of(text), parent=above, settings=settings, streaming=streaming, progress=progress)
    if path is not None:
        write_json(path, found)
    return found


def verify(parent: Source, child: Source, *, tokens: int = 48, seed: int = 0) -> Equality:
    """Compare ``child`` with ``parent`` whose units are masked, both loaded by plain transformers, on random tokens.

    ``.holds`` of the result: equal to the masked parent, cached decoding equal to the full forward, as many parameters
    as planned. Holds both models in memory. Raises UsageError when the child does not come from this parent.
    """
    from secateur.evaluation.equality import verify as run

    with opening(parent) as a, opening(child) as b:
        return run(a, b, tokens=tokens, seed=seed)


def report(
    sources: Source | Sequence[Source],
    text: Text = (),
    *,
    out: str | Path,
    parent: Source | None = None,
    metrics: Sequence[str | Path] = (),
    importance: Sequence[str | Path] = (),
    limit: int | str | None = None,
    window: int = 0,
    stride: int = 0,
    batch: int = 8,
    samples: int = 3,
    device: str = "auto",
    dtype: str = "auto",
    fast: bool = False,
    speed: bool = False,
    rounds: int = 5,
    progress: Progress | None = None,
) -> Collected:
    """Write one self-contained HTML page to ``out``; returns what it shows.

    ``sources``: files that :func:`evaluate` wrote, shown as they are, and checkpoints, which are measured on ``text``
    first with the settings of :func:`evaluate`; the first of several is the parent of the others unless ``parent`` is
    given. ``metrics`` and ``importance``: metrics.jsonl and importance.json that do not lie beside a checkpoint.

    Raises UsageError for what cannot be read, and for checkpoints without text.
    """
    from secateur.reporting import collect, write

    path = file_to_write(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"out {path}: the page is HTML; name it *.html")
    found = collect(
        several(sources),
        texts_of(text),
        parent=parent,
        metrics=[Path(m) for m in metrics],
        importance=[Path(i) for i in importance],
        settings=_measuring(limit, window, stride, batch, samples, device, dtype, fast, speed, rounds),
        progress=progress,
    )
    write(found, path)
    return found


def _measuring(
    limit: int | str | None, window: int, stride: int, batch: int, samples: int, device: str, dtype: str, fast: bool,
    speed: bool, rounds: int, reduction: TokenReduction | float | None = None, stream: bool | None = None,
) -> Measuring:  # fmt: skip
    from secateur.evaluation.load import Place
    from secateur.evaluation.results import Settings
    from secateur.evaluation.speed import SpeedSettings
    from secateur.pruning.budget import parse_amount
    from secateur.tokens.settings import TokenReduction

    return Settings(
        window=window,
        stride=stride,
        limit=None if limit is None else parse_amount(str(limit), 0, "limit"),
        batch=batch,
        prompts=samples,
        place=Place(device, dtype, fast),  # type: ignore[arg-type]  # it is judged when it is resolved
        speed=SpeedSettings(rounds=rounds) if speed else None,
        reduction=TokenReduction(flops=reduction) if isinstance(reduction, float | int) else reduction,
        stream=stream,
    )
