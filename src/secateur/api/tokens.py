"""Fewer tokens inside a model: for a while, and where they had best leave."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.api.common import Progress, Source, Text, opening, texts_of
from secateur.errors import UsageError

if TYPE_CHECKING:
    from secateur.tokens.calibrated import Calibrated
    from secateur.tokens.runtime import Reducing
    from secateur.tokens.settings import TokenReduction


def reduce_tokens(
    network: Any,
    reduction: TokenReduction | None = None,
    *,
    flops: float | None = None,
    prompt: int | None = None,
    **settings: Any,
) -> contextlib.AbstractContextManager[Reducing]:
    """Let ``network``, a loaded transformers causal model, read prompts with fewer tokens inside a ``with`` block:
    ``with sc.reduce_tokens(model, flops=0.8): model.generate(**inputs)``. Afterwards it is as before.

    ``reduction``: a :class:`TokenReduction`; else ``flops``, the share of a prompt's operations that is left, and other
    fields of it (method, locations, ...); else what :meth:`TokenReduction.save` left beside the model's checkpoint.
    ``prompt``: only so many first tokens of a pass count as prompt. See :mod:`secateur.tokens.runtime`.
    """
    from secateur.tokens.runtime import reduce_tokens as run
    from secateur.tokens.settings import TokenReduction as Asked

    if reduction is not None and (flops is not None or settings):
        raise UsageError("reduce_tokens: a reduction and settings of one are given; expected one of them")
    if reduction is None:
        said = flops is not None or bool(settings)
        reduction = Asked(flops=flops, **settings) if said else Asked.load(network.config.name_or_path)
    return run(network, reduction, prompt=prompt)


def schedule(
    model: Source,
    text: Text,
    *,
    flops: float = 0.8,
    prompt: int = 512,
    after: int = 64,
    samples: int = 128,
    trials: int = 30,
    batch: int = 4,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    fast: bool = True,
    save: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Calibrated:
    """Search where ``model``'s prompts lose tokens with the least harm, at a share ``flops`` of their operations.

    ``samples`` windows of ``text`` are drawn under ``seed``, each a ``prompt`` and ``after`` tokens behind it, on which
    the KL from the unreduced model is taken. ``trials``: schedules that are tried. ``save``: write the best beside the
    checkpoint, where :func:`reduce_tokens` finds it. Other keyword arguments are fields of :class:`TokenReduction`
    (method, measure, causal, ...). Memory: the whole model.

    Returns what was found: ``.asked`` is the reduction, ``.kl`` its KL, ``.paper`` that of the published schedule.
    Raises UsageError for text or a share that cannot be used, before the model is loaded.
    """
    from secateur.calibration.text import windows_of
    from secateur.evaluation.load import Place, loaded
    from secateur.tokens.calibrated import calibrate
    from secateur.tokens.score import judge
    from secateur.tokens.settings import TokenReduction as Asked

    asked = Asked(flops=flops, seed=seed, **settings)
    if not 0 < flops < 1:
        raise UsageError(f"--flops {flops}: expected a share of operations below 1")

    def told(label: str) -> Any:
        return (lambda done, total: None) if progress is None else (lambda done, total: progress(label, done, total))

    with opening(model) as opened:
        if save and not Path(opened.source).is_dir():
            raise UsageError(f"{opened.source}: is no folder to save a schedule in", hint="download the checkpoint")
        windows = windows_of(opened, texts_of(text), samples=samples, length=prompt + after, seed=seed)
        place = Place(device, dtype, fast)  # type: ignore[arg-type]  # it is judged when it is resolved
        with loaded(opened.folder, place) as network:
            views = judge(network, windows, prompt, batch=batch, progress=told("reading whole prompts"))
            found = calibrate(views, asked, trials=trials, seed=seed, progress=told("trying schedules"))
    if save:
        found.asked.save(opened.folder)
    return found
