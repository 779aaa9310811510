"""Measure and choose: statistics, plans, searched shapes, and what the road will take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.api.common import Progress, Source, Text, file_to_write, opening, stats_of, texts_of

if TYPE_CHECKING:
    from secateur.calibration.stats import Stats
    from secateur.pruning.plan import Plan
    from secateur.search.arena import Arena
    from secateur.search.removal.found import Found as Removal
    from secateur.search.run import Found as FoundShape


def calibrate(
    model: Source,
    text: Text,
    *,
    observe: Sequence[str] = ("activation",),
    samples: int = 128,
    length: int = 512,
    batch: int = 4,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    journal: str | Path | None = None,
    spill: str | Path | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Stats:
    """Statistics of ``model`` on ``samples`` windows of ``length`` tokens of ``text``, drawn under ``seed``.

    ``observe``: "activation" streams block by block, one block's weights in memory, and is always measured: what the
    scores activation, balanced, flap and block influence read. "taylor" (gradients), "depth" and "depth-iterative" (the
    loss without each layer) hold the whole model. ``batch``: windows at a time. ``journal``: a folder from which an
    interrupted walk resumes; ``spill``: one where hidden states lie, off memory. ``out``: also written there. Under
    torchrun each process walks a part of the windows.

    Raises UsageError for text that is too short, a name that cannot be observed, or a device that is not there.
    """
    from secateur.calibration.ranks import joined
    from secateur.calibration.text import windows_of
    from secateur.evaluation.load import DTYPES, Place
    from secateur.importance.measure import measure
    from secateur.pruning.choose import can_keep

    place = Place(device, dtype).resolved()  # type: ignore[arg-type]  # resolved() judges it
    texts = texts_of(text)
    with joined(place.device), opening(model) as opened:
        stats = measure(
            opened,
            windows_of(opened, texts, samples=samples, length=length, seed=seed),
            observe,
            batch=batch,
            dtype=DTYPES[place.dtype],
            device=place.device,
            about={"text": list(map(str, texts)), "seed": seed},
            journal=None if journal is None else Path(journal),
            spill=None if spill is None else Path(spill),
            allowed=lambda kept: can_keep(opened, kept),
            progress=progress,
        )
        if out is not None:
            stats.save(Path(out))
    return stats


def plan(
    model: Source,
    stats: Stats | str | Path | None = None,
    *,
    params: str | int | None = None,
    bytes: str | int | None = None,
    layers: Sequence[int] | int | None = None,
    layer_score: str = "block-influence",
    **keep: int,
) -> Plan:
    """Choose a shape: ``plan(m, params="60%")``, ``plan(m, hidden=3072, ffn=12288, ssm_heads=112)``, or both.

    With ``stats`` (or the file they were written to) sizes follow importance, and ``layers`` may be a number in any
    model (see ``layer_score``). ``params`` and ``bytes`` take "60%", "4B", "8GB".
    Raises InexpressibleError for shapes the config cannot say, BudgetError when nothing fits.
    """
    from secateur.pruning.plan import make_plan

    with opening(model) as opened:
        measured = stats_of(stats, opened)
        return make_plan(
            opened, params=params, bytes_=bytes, keep=keep, layers=layers, stats=measured, layer_score=layer_score
        )


def shed(
    model: Source,
    text: Text,
    stages: str,
    *,
    method: str = "greedy",
    by: str = "nll",
    out: str | Path | None = None,
    journal: str | Path | None = None,
    watch: Callable[[str, int], None] | None = None,
    **options: Any,
) -> tuple[Plan, Removal]:
    """What ``model`` can do without, as a plan for :func:`prune` and as it was found: layers, sub-blocks, the scans of
    Mamba blocks, channels. The whole model is in memory; nothing is trained.

    ``stages``: pools with how many of them go: ``"layer:6"``, or ``"mamba & mlp:4 + scan:8"``, one stage after the
    other. ``method``: greedy, one-shot, evopress, bonsai or exhaustive. ``by``: what is measured on ``text``: nll, kl
    or mse (of logits). ``out``: a file for the plan. ``journal``: a file from which the same call resumes. ``watch``:
    told each line of progress and the trials so far. Other keyword arguments are fields of
    :class:`secateur.search.removal.run.Settings`: group, samples, length, batch, seed, device, dtype.

    Raises UsageError for what means nothing, BudgetError when more is to go than there is.
    """
    from secateur.search.removal.found import silent
    from secateur.search.removal.run import Settings
    from secateur.search.removal.run import shed as run

    place = None if out is None else file_to_write(out)
    settings = Settings(stages, method, by, **options)
    with opening(model) as opened:
        at = None if journal is None else Path(journal)
        found = run(opened, texts_of(text), settings, journal=at, watch=watch or silent)
    if place is not None:
        found[0].save(place)
    return found


def search(
    model: Source,
    text: Text,
    *,
    strategy: str = "evolutionary",
    budget: str | float | None = None,
    axes: Sequence[str] | None = None,
    depth: bool = True,
    context: int = 4096,
    sequences: int = 1,
    stats: Stats | str | Path | None = None,
    effort: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    work: str | Path | None = None,
    table: str | Path | None = None,
    restart: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    watch: Callable[[Arena], None] | None = None,
    progress: Progress | None = None,
    **wanted: Any,
) -> FoundShape:
    """The best shape of ``model`` that ``strategy`` finds within what is wanted: ``params="60%"``, ``bytes="2GiB"``,
    ``cache="0.5x"`` and ``latency="0.6x"`` (of ``sequences`` sequences of ``context`` tokens; also ``prefill``,
    ``decode``), several together. ``.plan`` of the result is what :func:`prune` takes, ``.record`` the whole search.

    ``budget``: time to spend ("30min"); under a seed it decides how far the search goes, not which way. ``axes``: what
    may change; ``depth``: layers may go. ``effort``: fields of :class:`secateur.search.outcome.Effort`. ``out``: a file
    for the plan, the record beside it. ``work``: a folder from which the same call resumes, and the next search takes
    what was measured before. ``table``: block latencies of this machine, measured into that file when it is not there.
    Other keyword arguments are fields of :class:`secateur.search.run.Settings`: seed, samples, lessons, length, ...

    Raises UsageError for what does not fit together, BudgetError when no shape fits.
    """
    from secateur.calibration.ranks import joined
    from secateur.evaluation.load import Place
    from secateur.search.outcome import Effort
    from secateur.search.record import publish
    from secateur.search.resources import Workload
    from secateur.search.run import search as run
    from secateur.search.settings import Files, Settings, split

    seconds = None if budget is None else _seconds(budget)
    place = None if out is None else file_to_write(out)
    amounts, others = split(wanted)
    settings = Settings(
        wanted=amounts, strategy=strategy, effort=Effort(**(effort or {})), seconds=seconds, depth=depth,
        axes=None if axes is None else tuple(axes), workload=Workload(context, sequences),
        place=Place(device, dtype), **others,  # type: ignore[arg-type]  # it is judged when it is resolved
    )  # fmt: skip
    files = Files(None if work is None else Path(work), None if table is None else Path(table))
    told = progress or (lambda label, done, total: None)
    with joined(), opening(model) as opened:
        found = run(
            opened, texts_of(text), settings, files, stats=stats_of(stats, opened), restart=restart,
            watch=watch or (lambda arena: None), progress=told,
        )  # fmt: skip
        if place is not None:
            publish(found.plan, found.record, place)
    return found


def cost(
    model: Source,
    plan: Plan | Mapping[str, int],
    *,
    tokens: int | str = "20M",
    samples: int = 128,
    length: int = 512,
    processes: int = 1,
    top_k: int | None = None,
    gpu_rate: float = 160.0,
    folder: str | Path | None = None,
) -> dict[str, Any]:
    """What calibrating, cutting, repairing, measuring and healing on ``tokens`` will take, before any of it is started.

    A config.json is enough. The machine is probed for a few seconds (matrix products, sha256, the disk of ``folder``).
    ``gpu_rate``: 1e12 operations a second that one GPU really does. Returns {"steps": {verb: {"seconds", "gpu_seconds",
    "memory", "disk"}}, "load", "machine", "gpu_flops", "fitted"}; memory in bytes per process. Not ``fitted``: counted
    from rates alone, a bound from below. Raises BudgetError and InexpressibleError like :func:`plan`.
    """
    from dataclasses import asdict

    from secateur.cost import FITTED, Load, price, probe, work
    from secateur.pruning.plan import make_plan
    from secateur.pruning.shape import resolve
    from secateur.train import token_count

    load = Load(
        samples=samples, length=length, ranks=processes, train_tokens=token_count(tokens, "tokens"), top_k=top_k
    )
    with opening(model) as parent:
        made = make_plan(parent, keep=plan) if isinstance(plan, Mapping) else plan
        kept = range(made.layers) if isinstance(made.layers, int) else made.layers
        todo = work(parent, resolve(parent.anatomy, made.keep), frozenset(kept), load)
    machine, rate = probe(None if folder is None else Path(folder)), gpu_rate * 1e12
    steps = {verb: asdict(price(verb, w, machine, gpu_flops=rate)) for verb, w in todo.items()}
    told = {"load": asdict(load), "machine": machine.to_json(), "gpu_flops": rate, "fitted": FITTED.exists()}
    return {"steps": steps, **told}


def _seconds(budget: str | float) -> float:
    from secateur.search.budget import parse_duration

    return parse_duration(budget) if isinstance(budget, str) else float(budget)
