"""search: a model, text and a budget in; a plan that `prune` takes and a record of the search out."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from secateur.calibration.stats import Stats, calibrate, load_stats
from secateur.calibration.text import windows_of
from secateur.checkpoint.files import disk_error
from secateur.errors import UsageError
from secateur.evaluation.load import Place
from secateur.importance.depth import layer_scores
from secateur.model import Model
from secateur.pruning.plan import Plan
from secateur.search.arena import Arena
from secateur.search.bench import Bench
from secateur.search.budget import make_budget
from secateur.search.candidates import Space
from secateur.search.journal import Journal
from secateur.search.latency import Table
from secateur.search.outcome import Effort, Outcome
from secateur.search.probe import measure
from secateur.search.processes import gathered, rank, wait
from secateur.search.record import record
from secateur.search.resources import RESOURCES, Workload
from secateur.search.setting import setting_of
from secateur.search.strategies import STRATEGIES

#: Resources that have to be measured on this machine first.
TIMES = ("latency", "prefill", "decode")
STATS, TABLE = "stats.safetensors", "latency.json"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``wanted``: resource -> amount as people write it. ``axes``: that may change, None for all the config can resize.
    ``depth``: layers may go, all but ``least_layers``. ``workload``: what cache and latency are counted for.

    ``samples`` windows of ``length`` tokens are measured on, ``lessons`` more are distilled on. ``seconds``: to spend,
    None for as long as the effort lasts. ``criterion``: which units stay, '' the default. ``place``: where latency is
    measured.
    """

    wanted: Mapping[str, str]
    strategy: str = "evolutionary"
    effort: Effort = field(default_factory=Effort)
    seconds: float | None = None
    seed: int = 0
    axes: tuple[str, ...] | None = None
    depth: bool = True
    least_layers: int = 1
    workload: Workload = field(default_factory=Workload)
    samples: int = 64
    lessons: int = 64
    length: int = 256
    batch: int = 4
    criterion: str = ""
    place: Place = field(default_factory=Place)

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise UsageError(f"strategy {self.strategy!r} is unknown, expected one of {', '.join(STRATEGIES)}")
        unknown = [n for n in self.wanted if n not in (*RESOURCES, *TIMES)]
        if unknown or not self.wanted:
            expected = ", ".join((*RESOURCES, *TIMES))
            raise UsageError(f"budget {unknown[0] if unknown else 'empty'}: expected one or more of {expected}")


def split(options: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """(amounts of resources that are given, the other options)."""
    names = (*RESOURCES, *TIMES)
    amounts = {n: str(options[n]) for n in names if options.get(n) is not None}
    return amounts, {n: v for n, v in options.items() if n not in names}


@dataclass(frozen=True, slots=True)
class Files:
    """``work``: journal, statistics and latency table, which the next search there uses again; None keeps nothing.
    ``table``: a latency table that lies elsewhere, measured into that place when it is not there yet."""

    work: Path | None = None
    table: Path | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """``plan`` for `prune`; ``record``: the search as a document; ``stats``: what units are scored on."""

    plan: Plan
    record: dict[str, Any]
    outcome: Outcome
    stats: Stats


def search(
    model: Model,
    texts: Sequence[str | Path],
    settings: Settings,
    files: Files | None = None,
    *,
    stats: Stats | None = None,
    restart: bool = False,
    watch: Callable[[Arena], None] = lambda arena: None,
    progress: Progress = lambda label, done, total: None,
) -> Found:
    """The best shape the strategy finds for ``model`` within the budget. Under torchrun every process calls this.

    Raises UsageError for what does not fit together, BudgetError when no shape fits.
    """
    files = files or Files()
    if restart and files.work is not None:
        shutil.rmtree(files.work, ignore_errors=True)
    _prepare(files)
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
    try:
        arena = Arena(
            bench, space, settings.effort, seed=settings.seed, seconds=settings.seconds, journal=journal, watch=watch
        )
        outcome = STRATEGIES[settings.strategy](arena)
    finally:
        if journal is not None:
            journal.close()
    plan = arena.plan(outcome.winner, _notes(settings, bench, outcome))
    about = {"text": [str(t) for t in texts], **_about(settings)}
    return Found(plan, record(arena, outcome, plan, settings.strategy, about), outcome, stats)


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


def _prepare(files: Files) -> None:
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


def _notes(settings: Settings, bench: Bench, outcome: Outcome) -> list[str]:
    how = f"--strategy {settings.strategy} --seed {settings.seed}"
    return [
        f"found by secateur search {how}, ranked at stage {outcome.stage.name}",
        f"cut it with --score {bench.criterion} on the statistics of the search, as it was measured",
        *outcome.notes,
    ]


def _about(settings: Settings) -> dict[str, Any]:
    return {
        "wanted": dict(settings.wanted),
        "seed": settings.seed,
        "seconds": settings.seconds,
        "effort": settings.effort.to_json(),
        "axes": None if settings.axes is None else list(settings.axes),
        "depth": settings.depth,
        "samples": settings.samples,
        "lessons": settings.lessons,
        "length": settings.length,
        "context": settings.workload.context,
        "batch": settings.workload.batch,
    }


__all__ = ["Files", "Found", "Settings", "latency_table", "search", "split"]
