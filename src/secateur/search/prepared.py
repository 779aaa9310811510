"""From a model, text and settings to an arena: windows, statistics, latencies, the space, the journal."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from secateur.calibration.stats import Stats, calibrate, load_stats
from secateur.calibration.text import windows_of
from secateur.checkpoint.files import disk_error
from secateur.evaluation.load import Place
from secateur.importance.depth import layer_scores
from secateur.model import Model
from secateur.search.arena import Arena
from secateur.search.bench import Bench
from secateur.search.budget import make_budget
from secateur.search.candidates import Space
from secateur.search.journal import Journal
from secateur.search.latency import Table
from secateur.search.probe import measure
from secateur.search.processes import gathered, rank, wait
from secateur.search.resources import Workload
from secateur.search.setting import setting_of
from secateur.search.settings import TIMES, Files, Settings

STATS, TABLE = "stats.safetensors", "latency.json"

Progress = Callable[[str, int, int], None]


def prepared(
    model: Model,
    texts: Sequence[str | Path],
    settings: Settings,
    files: Files | None = None,
    *,
    stats: Stats | None = None,
    restart: bool = False,
    watch: Callable[[Arena], None] = lambda arena: None,
    progress: Progress = lambda label, done, total: None,
) -> Arena:
    """An arena to search in; its journal, where there is one, is the caller's to close.

    Raises UsageError for what does not fit together.
    """
    files = files or Files()
    _folders(files, restart)
    count = settings.samples + settings.lessons
    windows = windows_of(model, texts, samples=count, length=settings.length, seed=settings.seed)
    measured, lessons = windows[: settings.samples], windows[settings.samples :]
    stats = stats or _statistics(model, measured, texts, settings, files, progress)
    space = _space(model, stats, settings, files, progress)
    bench = Bench(
        model, measured, lessons=lessons if len(lessons) else None, stats=stats, criterion=settings.criterion,
        batch=settings.batch, seed=settings.seed,
    )  # fmt: skip
    journal = None
    if files.work is not None:
        journal = Journal(files.work, _identity(model, windows, bench, settings), rank=rank())
    effort, seed, seconds = settings.effort, settings.seed, settings.seconds
    return Arena(bench, space, effort, seed=seed, seconds=seconds, journal=journal, watch=watch)


def _statistics(
    model: Model,
    windows: torch.Tensor,
    texts: Sequence[str | Path],
    settings: Settings,
    files: Files,
    progress: Progress,
) -> Stats:
    """What the walk over the search's own windows shows; from the work folder where it has been there."""
    about = {"text": [str(t) for t in texts], "seed": settings.seed}
    path = None if files.work is None else files.work / STATS
    if path is not None and path.is_file():
        found = load_stats(path, model)
        shape = {"samples": windows.shape[0], "length": windows.shape[1]}
        if all(found.about.get(k) == v for k, v in {**about, **shape}.items()):
            return found
    told = partial(progress, "calibrating")
    stats = calibrate(model, windows, batch=settings.batch, about=about, progress=told)
    if path is not None:
        stats.save(path)
        wait()
    return stats


def _space(model: Model, stats: Stats, settings: Settings, files: Files, progress: Progress) -> Space:
    order = None
    if settings.depth:
        influence = layer_scores(model.anatomy, stats, "block-influence")
        order = sorted(range(model.anatomy.n_layers), key=lambda i: influence[i])
    timed = {}
    if any(name in TIMES for name in settings.wanted):
        place = settings.place.resolved()
        table = latency_table(model, settings.axes, settings.workload, place, files, progress)
        timed = table.resources(setting_of(model, settings.workload, place))
    budget = make_budget(model, settings.wanted, settings.workload, measured=timed)
    return Space(model, budget, axes=settings.axes, order=order, least_layers=settings.least_layers)


def latency_table(
    model: Model,
    axes: Sequence[str] | None,
    workload: Workload,
    place: Place,
    files: Files,
    progress: Progress = lambda label, done, total: None,
) -> Table:
    """The table in its file where there is one for this machine, model and workload, else measured and saved there."""
    path = files.table or (None if files.work is None else files.work / TABLE)
    here = setting_of(model, workload, place)
    if path is not None and path.is_file():
        table = Table.load(path)
        table.check(here)
        return table
    found = None
    if rank() == 0:
        found = measure(model, axes, workload, place, progress=partial(progress, "timing blocks"))
        if path is not None:
            found.save(path)
    return next(t for t in gathered(found) if t is not None)


def _folders(files: Files, restart: bool) -> None:
    if restart and files.work is not None and rank() == 0:
        shutil.rmtree(files.work, ignore_errors=True)
    wait()
    for folder in filter(None, (files.work, files.table and files.table.parent)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise disk_error(cause, folder) from cause


def _identity(model: Model, windows: torch.Tensor, bench: Bench, settings: Settings) -> dict[str, Any]:
    """What scores depend on. Weights by name and size of their files: hashing them would cost more than many scores."""
    weights = {name: path.stat().st_size for name, path in _weights(model).items()}
    return {
        "config": model.config_sha256,
        "weights": weights,
        "windows": hashlib.sha256(windows.numpy().tobytes()).hexdigest(),
        "measured": settings.samples,
        "criterion": bench.criterion,
        "seed": settings.seed if bench.criterion == "random" else 0,
    }


def _weights(model: Model) -> dict[str, Path]:
    return {name: model.folder / name for name in sorted(model.weights.files)}
