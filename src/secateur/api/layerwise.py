"""Every linear made smaller by itself, and files for other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.api.common import Progress, Source, Text, opening, texts_of

if TYPE_CHECKING:
    from secateur.model import Model


def quantize(
    model: Source,
    out: str | Path,
    *,
    text: Text | None = None,
    method: str = "gptq",
    bits: float | None = None,
    group: int | None = None,
    allocate: str = "uniform",
    store: str = "packed",
    residual: int = 0,
    samples: int = 128,
    length: int = 512,
    batch: int = 4,
    sequential: str = "layer",
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Model:
    """Round every linear of ``model`` to ``bits`` (4) bits, without training; written to ``out``, returned opened.

    ``method``: rtn, gptq, obq, decoupleq, higgs, nupes, bct or onebit. ``group``: columns that share a scale (128; 0:
    whole rows). ``allocate``: "uniform", or a solver (greedy, dynamic, ..) that shares out ``bits`` on average by the
    errors they cost. ``store``: "packed" is a compressed-tensors checkpoint, in which what no loader takes packed is
    dequantised; "dense" stores all so. ``residual``: rank of a low-rank correction (EoRA), stored as a LoRA adapter in
    ``out``/adapter; 0: none. ``text`` as in :func:`calibrate`; rtn, higgs, bct and onebit need none. Memory: one layer;
    ``sequential="linear"`` takes half the forward passes and holds all text in a block. Other keyword arguments are the
    method's own: symmetric, search, order, damp, ...

    Raises UsageError for what does not fit together, before anything is computed.
    """
    from secateur.layerwise.quantize.run import quantize as run

    with opening(model) as opened:
        windows, job, about = _layerwise(
            opened, text, samples, length, seed, device, dtype,
            batch=batch, sequential=sequential, overwrite=overwrite, residual=residual,
        )  # fmt: skip
        return run(
            opened, windows, Path(out), method, job, bits=bits, store=store, allocate=allocate, about=about,
            progress=progress, group=group, **options,
        )  # fmt: skip


def sparsify(
    model: Source,
    out: str | Path,
    *,
    text: Text | None = None,
    method: str = "mrp",
    pattern: str = "50%",
    residual: int = 0,
    samples: int = 128,
    length: int = 512,
    batch: int = 4,
    sequential: str = "layer",
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    overwrite: bool = False,
    note: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Model:
    """Set a share of every linear of ``model`` to zero and make up for it; written to ``out``, returned opened.

    ``method``: magnitude, wanda, sparsegpt, obc, mrp, swap, chita or block. ``pattern``: "50%" of all entries go, or
    "2:4", two of every four neighbouring inputs stay. ``text`` as in :func:`calibrate`; magnitude needs none; the last
    ``batch`` of windows judges and is not fitted. ``residual``: rank of a low-rank correction (EoRA), stored as a LoRA
    adapter in ``out``/adapter; 0: none. ``note``: told what the run will take. Memory: one layer;
    ``sequential="linear"`` takes half the forward passes and holds all text in a block. Other keyword arguments are the
    method's own. An interrupted run resumes by the same call. :func:`distill` keeps zeros.

    Raises UsageError for what does not fit together, before anything is computed.
    """
    from dataclasses import replace

    from secateur.layerwise.base import find
    from secateur.layerwise.run import compress
    from secateur.layerwise.sparsify import SPARSIFY

    chosen = find(SPARSIFY, method, "sparsify")
    settings = chosen.configure(pattern=pattern, **options)
    with opening(model) as opened:
        windows, job, about = _layerwise(
            opened, text, samples, length, seed, device, dtype,
            batch=batch, sequential=sequential, overwrite=overwrite, residual=residual,
        )  # fmt: skip
        job = replace(job, step="sparsify", note=note)
        return compress(opened, windows, Path(out), chosen, settings, job, about=about, progress=progress)


def factorize(
    model: Source,
    out: str | Path,
    *,
    text: Text | None = None,
    method: str = "svd-llm",
    ratio: float | None = None,
    rank: int | None = None,
    allocate: str = "uniform",
    store: str = "dense",
    samples: int = 128,
    length: int = 512,
    batch: int = 4,
    sequential: str = "layer",
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Model:
    """Put two thin matrices in place of every linear of ``model``, in closed form; written to ``out``, returned opened.

    ``method``: svd, asvd, svd-llm, lord, curing, or modegpt, which compresses pairs of matrices and whose children are
    smaller standard checkpoints where the config can say so. ``ratio``: part of a linear's parameters to keep (0.8), or
    ``rank``: the same for all. ``allocate``: "uniform", or a solver (greedy, dynamic, ..) that shares ranks out by what
    they cost. ``store``: "dense" multiplies the factors out; "factors" writes a packed folder (``secateur expand``).
    ``text`` as in :func:`calibrate`; svd needs none. Memory: one layer; ``sequential="linear"`` takes half the forward
    passes and holds all text in a block. Other keyword arguments are the method's own.

    Raises UsageError for what does not fit together, before anything is computed.
    """
    from secateur.layerwise.factorize.run import factorize as run

    with opening(model) as opened:
        windows, job, about = _layerwise(
            opened, text, samples, length, seed, device, dtype, batch=batch, sequential=sequential, overwrite=overwrite
        )
        return run(
            opened, windows, Path(out), method, job, store=store, allocate=allocate, about=about, progress=progress,
            ratio=ratio, rank=rank, **options,
        )  # fmt: skip


def export(
    model: Source,
    out: str | Path,
    *,
    to: str,
    type: str | None = None,
    pre: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write ``model`` for another program: ``to="gguf"`` is a file for llama.cpp, ``"sparse"`` a folder with bitmaps in
    place of zeros (``secateur expand``). ``type``: of a GGUF file's matrices, "f16" when not said; codes that are
    packed already are kept. ``pre``: llama.cpp's name of the tokenizer's splitting rule, where it is not known.

    Returns ``bytes`` on disk and ``notes`` in words. Raises InexpressibleError for what llama.cpp cannot hold, before
    anything is written.
    """
    from secateur.export.run import export as run

    with opening(model) as opened:
        return run(opened, Path(out), to, type=type, pre=pre, overwrite=overwrite, progress=progress)


def _layerwise(
    model: Model, text: Text | None, samples: int, length: int, seed: int, device: str, dtype: str, **how: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """(windows or None, job, what the record says of the text) of a layer-wise method; ``how``: fields of the job."""
    from secateur.calibration.text import windows_of
    from secateur.evaluation.load import DTYPES, Place
    from secateur.layerwise.run import Job

    place = Place(device, dtype).resolved()  # type: ignore[arg-type]  # resolved() judges it
    texts = texts_of(text) if text is not None else []
    windows = windows_of(model, texts, samples=samples, length=length, seed=seed) if texts else None
    job = Job(step="", dtype=DTYPES[place.dtype], device=place.device, **how)
    return windows, job, {"text": list(map(str, texts)), "seed": seed}
