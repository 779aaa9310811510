"""quantize: a checkpoint (and text) in; packed integers that plain transformers loads, or dequantised weights, out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from secateur.errors import UsageError
from secateur.export.compressed import CompressedTensors
from secateur.layerwise.base import Method, find
from secateur.layerwise.places import Place
from secateur.layerwise.quantize import QUANTIZE, rtn
from secateur.layerwise.quantize.grids import Format
from secateur.layerwise.quantize.mixed import curves, shared_out
from secateur.layerwise.run import Job, Progress, compress
from secateur.model import Model

Store = Literal["packed", "dense"]
STORES: tuple[Store, ...] = ("packed", "dense")
Choose = Callable[[Place], tuple[Method, Any] | str]


def quantize(
    model: Model,
    windows: torch.Tensor | None,
    out: Path,
    method: str,
    job: Job,
    *,
    bits: float | None = None,
    store: str = "packed",
    allocate: str = "uniform",
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Model:
    """Quantise every linear of ``model`` and write the result to ``out``; returns it opened.

    ``bits``: of a weight, without scales; with ``allocate`` (a solver) the mean, shared out by errors. ``store``:
    "packed" as compressed-tensors where loaders take it, "dense" dequantised everywhere. ``options``: fields of the
    method's settings (group, symmetric, ..), None for their defaults.
    """
    chosen = find(QUANTIZE, method, "quantize")
    if store not in STORES:
        raise UsageError(f"--store {store!r}: expected one of {', '.join(STORES)}")
    if allocate == "uniform" and bits is not None and bits != int(bits):
        raise UsageError(
            f"--bits {bits:g}: a mean of several widths needs --allocate", hint="such as --allocate dynamic"
        )
    settings = chosen.configure(bits=None if bits is None or allocate != "uniform" else int(bits), **options)
    widths = {}
    if allocate != "uniform":
        widths = _widths(model, windows, settings, job, 4.0 if bits is None else bits, allocate, progress)
    symmetric = getattr(settings, "symmetric", True)
    storage = CompressedTensors(model, symmetric=symmetric) if store == "packed" else None
    said = {**(about or {}), "store": store, "allocate": allocate, **({"bits": bits} if widths else {})}
    job = replace(job, step="quantize", storage=storage)
    choose = _choose(chosen, settings, widths, model)
    return compress(model, windows, out, chosen, settings, job, choose=choose, about=said, progress=progress)


def _choose(method: Method, settings: Any, widths: Mapping[str, int], model: Model) -> Choose:
    """What each linear gets. Experts stored one by one share one format, since loaders know one for all of them."""
    sizes = model.anatomy.sizes
    common = math.gcd(sizes.get("dl", sizes["d"]), sizes.get("fe", sizes["d"]))
    experts = settings
    if getattr(settings, "group", 0):
        experts = replace(settings, group=Format(group=settings.group).width(common))

    def choose(place: Place) -> tuple[Method, Any] | str:
        mine = experts if place.expert is not None else settings
        return method, replace(mine, bits=widths[place.name]) if place.name in widths else mine

    return choose


def _widths(
    model: Model,
    windows: torch.Tensor | None,
    settings: Any,
    job: Job,
    bits: float,
    solver: str,
    progress: Progress | None,
) -> dict[str, int]:
    """Bits of every linear; of experts stored one by one, the same for all of a model."""
    if windows is None or not hasattr(settings, "bits"):
        lacks = "no --text" if windows is None else "a method with one width"
        raise UsageError(f"--allocate {solver}: errors decide, and there is {lacks}")
    told = None if progress is None else lambda done, total: progress("rounding at every width", done, total)
    plain = rtn.Settings(group=getattr(settings, "group", 128))
    found = curves(model, windows, plain, {"dtype": job.dtype, "device": job.device}, job.batch, told)
    experts = [n for n in found if "E" in model.anatomy.tensors[n].env]
    if experts:
        together = [found.pop(n) for n in experts]
        widths = together[0].keys()
        found[_EXPERTS] = {w: (sum(c[w][0] for c in together), sum(c[w][1] for c in together)) for w in widths}
    chosen = shared_out(found, bits, solver)
    return {n: w for n, w in chosen.items() if n != _EXPERTS} | dict.fromkeys(experts, chosen.get(_EXPERTS, 0))


_EXPERTS = "all experts"
