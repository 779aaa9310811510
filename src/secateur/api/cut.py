"""Cut, and repair in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.api.common import Progress, Source, Text, opening, stats_of, texts_of
from secateur.errors import UsageError

if TYPE_CHECKING:
    from secateur.calibration.stats import Stats
    from secateur.model import Model
    from secateur.pruning.plan import Plan

REPAIR_METHODS = ("norm", "least-squares")
REPAIR_SAMPLES, REPAIR_LENGTH = 64, 256
"""Windows and tokens of each that a repair is fitted and judged on, where nothing else is said."""


def prune(
    model: Source,
    plan: Plan | Mapping[str, int],
    out: str | Path,
    *,
    stats: Stats | str | Path | None = None,
    repair: str | Sequence[str] | None = None,
    text: Text | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Model:
    """Cut ``model`` to ``plan`` (or to public sizes) and write the checkpoint to ``out``; returns it opened.

    ``stats``: what measured criteria score on. ``score`` is "contribution" with them and "magnitude" without, unless
    said otherwise. ``repair``: "least-squares", "norm" or both, fitted as :func:`repair` does by default on ``text``,
    or on the text that ``stats`` were taken on. ``text`` also says which tokens stay when the vocabulary shrinks.
    Other keyword arguments are the fields of :class:`secateur.pruning.run.Settings`: score, seed, norm, mask, ...

    ``out`` holds a whole checkpoint or nothing. Raises SecateurError before anything is written when the plan, the
    score or the files do not allow the cut.
    """
    from secateur.data import read_texts
    from secateur.importance import default_score
    from secateur.pruning.plan import make_plan
    from secateur.pruning.run import Settings
    from secateur.pruning.run import prune as run

    with opening(model) as parent:
        measured = stats_of(stats, parent)
        made = make_plan(parent, keep=plan, stats=measured) if isinstance(plan, Mapping) else plan
        chosen = Settings(**{"score": default_score(measured is not None), **settings})
        counted = list(read_texts(texts_of(text), documents="blank-line")) if text and "vocab" in made.keep else None
        if repair is not None:
            return _repaired(parent, made, Path(out), chosen, measured, counted, repair, text, progress)
        writing = None if progress is None else lambda done, total: progress("writing", done, total)
        return run(parent, made, Path(out), chosen, stats=measured, texts=counted, progress=writing)


def repair(
    child: Source,
    text: Text,
    *,
    parent: Source,
    out: str | Path,
    methods: str | Sequence[str] = REPAIR_METHODS,
    samples: int = REPAIR_SAMPLES,
    length: int = REPAIR_LENGTH,
    batch: int = 4,
    seed: int = 0,
    damp: float | None = None,
    feedback: bool = True,
    device: str = "cpu",
    journal: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Model:
    """Repair a freshly cut ``child`` in closed form and write it to ``out``; returns it opened.

    ``methods``: "norm" fits norm factors, "least-squares" what writes the residual stream, on ``samples`` windows of
    ``length`` tokens. A repair stays only if it lowers the layer's error on windows it was not fitted on; every attempt
    is in the result's secateur.json, under repair. ``damp``: pull towards the cut weights, relative to the Gram
    matrix's scale; None: for every linear the one that predicts a part of its text best from the rest. ``feedback``: a
    layer may make up for what earlier layers lost. ``journal``: a folder from which an interrupted repair resumes.
    Memory: one layer of each model.

    Raises UsageError when the child does not come from this parent, or the text is too short to fit and to judge.
    """
    from secateur.calibration.text import windows_of
    from secateur.evaluation.load import Place
    from secateur.pruning.repair.run import RepairSettings
    from secateur.pruning.repair.run import repair as run

    texts, place = texts_of(text), Place(device, "float32").resolved()
    settings = RepairSettings(methods=_methods(methods), damp=damp, feedback=feedback, batch=batch)
    with opening(parent) as above, opening(child) as cut:
        windows = windows_of(above, texts, samples=samples, length=length, seed=seed)
        about = {"text": list(map(str, texts)), "seed": seed}
        told = None if progress is None else lambda done, total: progress("repairing", done, total)
        return run(
            cut, above, windows, Path(out), settings, about=about, overwrite=overwrite, device=place.device,
            journal=None if journal is None else Path(journal), progress=told,
        )[0]  # fmt: skip


def _methods(methods: str | Sequence[str]) -> tuple[str, ...]:
    from secateur.pruning.repair.layer import METHODS

    asked = (methods,) if isinstance(methods, str) else tuple(methods)
    unknown = [m for m in asked if m not in METHODS]
    if unknown or not asked:
        raise UsageError(f"repair: {unknown[0] if unknown else ''!r}, expected one or more of {', '.join(METHODS)}")
    return asked


def _repaired(
    parent: Model,
    plan: Plan,
    out: Path,
    settings: Any,
    stats: Stats | None,
    counted: Sequence[str] | None,
    methods: str | Sequence[str],
    text: Text | None,
    progress: Progress | None,
) -> Model:
    """The cut and its repair with the windows that :func:`repair` would draw."""
    from secateur.calibration.text import windows_of
    from secateur.pruning.repair.run import RepairSettings
    from secateur.pruning.repaired import prune_repaired

    texts = texts_of(text) if text is not None else list(stats.about.get("text", ())) if stats is not None else []
    if not texts:
        raise UsageError("a repair is fitted on text, and none is given", hint="give text=, or stats taken on text")
    windows = windows_of(parent, texts, samples=REPAIR_SAMPLES, length=REPAIR_LENGTH, seed=0)
    repairs, about = RepairSettings(methods=_methods(methods)), {"text": list(map(str, texts)), "seed": 0}
    return prune_repaired(
        parent, plan, out, settings, windows, repairs, stats=stats, texts=counted, about=about, progress=progress
    )
