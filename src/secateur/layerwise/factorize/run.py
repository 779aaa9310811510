"""factorize: a checkpoint and text in; thin factors out, multiplied (standard checkpoint) or in parts (fewer bytes)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from secateur.errors import UsageError
from secateur.export.in_parts import InParts
from secateur.layerwise.base import Method, find
from secateur.layerwise.factorize import FACTORIZE
from secateur.layerwise.factorize.ranks import shared_out, spectra
from secateur.layerwise.places import Place
from secateur.layerwise.run import Job, Progress, compress
from secateur.model import Model

Store = Literal["dense", "factors"]
STORES: tuple[Store, ...] = ("dense", "factors")
MODEGPT = "modegpt"
"""Works on pairs of matrices, so it is no line of the registry."""
WHOLE = "kept whole: ranks are spent elsewhere"


def factorize(
    model: Model,
    windows: torch.Tensor | None,
    out: Path,
    method: str,
    job: Job,
    *,
    store: str = "dense",
    allocate: str = "uniform",
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Model:
    """Factorise every linear of ``model`` and write the result to ``out``; returns it opened.

    ``store``: "dense" multiplies the factors out: a standard checkpoint of the parent's size; "factors" keeps them: a
    packed folder for ``secateur expand``. ``allocate``: "uniform", or the solver that shares ranks out by spectra.
    ``options``: fields of the method's settings (ratio, rank, ..), None for their defaults.
    """
    if method == MODEGPT:
        return _modegpt(model, windows, out, job, store, allocate, about, progress, **options)
    chosen = find(FACTORIZE, method, "factorize")
    settings = chosen.configure(**options)
    if store not in STORES:
        raise UsageError(f"--store {store!r}: expected one of {', '.join(STORES)}")
    choose = None
    if allocate != "uniform":
        choose = _allocated(model, windows, out, chosen, settings, job, allocate, progress)
    said = {**(about or {}), "store": store, "allocate": allocate}
    job = replace(job, step="factorize", storage=InParts("factors") if store == "factors" else None)
    return compress(model, windows, out, chosen, settings, job, choose=choose, about=said, progress=progress)


def _modegpt(
    model: Model,
    windows: torch.Tensor | None,
    out: Path,
    job: Job,
    store: str,
    allocate: str,
    about: Mapping[str, Any] | None,
    progress: Progress | None,
    *,
    ratio: float | None = None,
    **options: Any,
) -> Model:
    """A smaller standard checkpoint, so there is nothing to store in parts, and one size for all layers to choose."""
    from secateur.layerwise.factorize.modegpt.run import modegpt

    given = [k for k, v in options.items() if v is not None]
    at_once = job.sequential == "linear"
    if windows is None or store != "dense" or allocate != "uniform" or at_once or given:
        wrong = (
            f"--{given[0].replace('_', '-')}" if given else "no --text" if windows is None
            else "--sequential linear" if at_once else "--store or --allocate"
        )  # fmt: skip
        raise UsageError(f"method 'modegpt' works with --text and --ratio alone, not with {wrong}")
    return modegpt(model, windows, out, 0.8 if ratio is None else ratio, job, about=about, progress=progress)


def _allocated(
    model: Model,
    windows: torch.Tensor | None,
    out: Path,
    method: Method,
    settings: Any,
    job: Job,
    solver: str,
    progress: Progress | None,
) -> Callable[[Place], tuple[Method, Any] | str]:
    """What each linear gets."""
    if windows is None or settings.rank is not None:
        lacks = "one --rank for all" if settings.rank is not None else "no --text"
        raise UsageError(f"--allocate {solver}: spectra decide, and there is {lacks}", hint="give --ratio and --text")
    told = None if progress is None else lambda done, total: progress("looking at spectra", done, total)
    where = {"dtype": job.dtype, "device": job.device}
    with tempfile.TemporaryDirectory() as work:
        found = spectra(model, windows, Path(work), where, job.batch, told)
    ranks = shared_out(found, settings.ratio, solver)

    def choose(place: Place) -> tuple[Method, Any] | str:
        if place.name not in ranks:
            return method, settings  # a weight that several layers use has the uniform rank
        rank = ranks[place.name]
        return WHOLE if rank is None else (method, replace(settings, rank=rank))

    return choose
