"""A checkpoint and text in, the checkpoint with every linear compressed out: walk, solve, write, account for it.

A weight that several layers use (Zamba2's shared block) is solved before the walk, on the Grams of all its users
together, taken from the model as it is; every user then runs with the compressed weight.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file, save_file

from secateur.calibration.observer import Layer
from secateur.calibration.skeleton import Skeleton
from secateur.calibration.stats import check_windows
from secateur.calibration.together import Together
from secateur.calibration.walker import walk
from secateur.checkpoint import require_space
from secateur.checkpoint.begun import begin, check_out
from secateur.errors import UsageError
from secateur.export.adapter import composed
from secateur.layerwise.base import Method, Needs
from secateur.layerwise.engine import Dense, Engine, Storage, is_main
from secateur.layerwise.gram import gram_bytes
from secateur.layerwise.heap import large_apart
from secateur.layerwise.observe import Grams
from secateur.layerwise.places import Place, left, places
from secateur.layerwise.write import publish_result
from secateur.model import Model, open_model

Progress = Callable[[str, int, int], None]
Choice = Callable[[Place], "tuple[Method, Any] | str"]
Sequential = Literal["layer", "linear"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """How a method is run. ``step``: verb for the record. ``batch``: windows at a time. ``work``: where an unfinished
    run is kept, beside ``out`` when not given; ``restart`` throws it away. ``overwrite``: a checkpoint at ``out`` may
    be replaced. ``storage``: how solved linears are stored. ``note``: told what the run will take before it starts.
    ``residual``: rank of what makes up for the method (EoRA), stored as an adapter beside the checkpoint; 0: none.
    ``sequential``: what a linear's inputs have seen, see :func:`compress`."""

    step: str
    batch: int = 4
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    work: Path | None = None
    restart: bool = False
    overwrite: bool = False
    storage: Storage | None = None
    note: Callable[[str], None] | None = None
    residual: int = 0
    sequential: Sequential = "layer"


def compress(
    model: Model,
    windows: torch.Tensor | None,
    out: Path,
    method: Method,
    settings: Any,
    job: Job,
    *,
    choose: Choice | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Model:
    """Solve every linear of ``model`` with ``method`` on ``windows`` (samples, tokens) and write the result to ``out``;
    returns it opened. The last batch of windows judges and is not fitted.

    ``job.sequential``: by "layer", a linear is solved on what it reads while its own layer is the parent's, batch by
    batch, and every block runs twice; by "linear", on what it reads behind the compressed linears before it, with all
    batches in the block side by side: once through each block, in memory that grows with the text. Layers of routed
    experts are solved by layer in either case.

    ``windows`` may be None for a method that needs nothing. ``choose``: another method or settings for some places, or
    why they are left. Raises UsageError for what does not fit together, LayoutError for a tensor that no rule covers,
    all before anything is computed; CheckpointError for the disk.
    """
    work = job.work or out.absolute().with_name(out.name + ".work")
    alone = method
    chosen = choose or (lambda place: (alone, settings))
    if job.residual:
        method, chosen, storage = composed(model, method, chosen, job.storage or Dense(), work, job.residual)
        job = replace(job, storage=storage)
    if windows is None and method.needs != "nothing":
        raise UsageError(
            f"method {method.name!r} looks at activations, and no text is given", hint="give it with --text"
        )
    if windows is not None:
        check_windows(model, windows)
    check_sequential(job.sequential, windows)
    check_out(out, overwrite=job.overwrite)
    require_space(out, 2 * model.weights.total_bytes)
    every = survey(model)
    begin(work, _identity(model, windows, method, settings, job), restart=job.restart)
    memory = gram_memory(model, every, method.needs) if windows is not None else 0
    if job.note is not None and memory:
        job.note(f"Gram matrices will take at most {memory / 1e6:,.1f} MB at a time")
    large_apart()
    engine = _solved(model, windows, every, chosen, method, work, job, progress)
    if is_main():
        record = {**_record(model, windows, method, settings, job, about), "gram_bytes": memory}
        publish_result(model, engine, out, left(model.anatomy), record, job.overwrite)
        shutil.rmtree(work, ignore_errors=True)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    return open_model(out)


def check_sequential(sequential: Sequential, windows: torch.Tensor | None) -> None:
    """Raises UsageError where linears cannot be solved in turn."""
    if sequential not in get_args(Sequential):
        raise UsageError(f"--sequential {sequential}: expected one of {', '.join(get_args(Sequential))}")
    if sequential == "linear" and windows is not None and torch.distributed.is_initialized():
        raise UsageError(
            "--sequential linear: all text has to be in one process, and there are "
            f"{torch.distributed.get_world_size()}",
            hint="leave it out, or start one process",
        )


def survey(model: Model) -> list[list[Place]]:
    """The places of every layer, from the config alone. Raises LayoutError for a tensor that no rule covers."""
    skeleton = Skeleton(model)
    anatomy = model.anatomy
    found = [list(places(Layer(i, anatomy.kinds[i], skeleton.blocks[i], anatomy))) for i in range(anatomy.n_layers)]
    covered = {p.name for layer in found for p in layer} | set(left(anatomy))
    lost = sorted(set(anatomy.tensors) - covered)
    if lost:
        raise UsageError(
            f"no rule covers {len(lost)} tensors: {', '.join(lost[:3])}", hint="add one to secateur/layerwise/places.py"
        )
    return found


def gram_memory(model: Model, every: Sequence[Sequence[Place]] | None = None, needs: Needs = "gram") -> int:
    """Bytes that Grams take at most at a time: those of one layer, and those of weights that layers share.

    An upper bound, told before any text is read: linears that will turn out to read one input are counted apart.
    """
    each = [[(p, *_counted(p, model)) for p in layer] for layer in (every or survey(model))]
    size = partial(gram_bytes, diagonal=needs == "diagonal")
    shared = {p.name: n * size(d) for layer in each for p, n, d in layer if p.shared}
    own = [sum(n * size(d) for p, n, d in layer if not p.shared) for layer in each]
    return sum(shared.values()) + max(own, default=0)


def _counted(place: Place, model: Model) -> tuple[int, int]:
    """(matrices, inputs) of a place."""
    from secateur.anatomy import layout as lo

    shape = lo.shape(place.decl.layout, model.anatomy.sizes)
    return (shape[0] if place.stacked else 1), shape[-2 if place.input_first else -1]


def _solved(
    model: Model,
    windows: torch.Tensor | None,
    every: Sequence[Sequence[Place]],
    choose: Choice,
    method: Method,
    work: Path,
    job: Job,
    progress: Progress | None,
) -> Engine:
    """Everything solved and in the work folder."""
    batches = [] if windows is None else list(torch.split(windows, job.batch))
    needs = "nothing" if windows is None else "gram" if method.needs == "nothing" else method.needs

    def told(label: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(label, done, total)

    in_turn = job.sequential == "linear"
    grams = Grams(needs, len(batches), lambda p: not p.shared, brief=not in_turn)
    engine = Engine(model, work, grams, choose, job.storage or Dense())
    together = Together(engine.in_turn) if in_turn else None
    grams.wait = together.wait if together else None
    alone = {p.name: p for layer in every for p in layer if p.shared}
    settings: dict[str, Any] = {"dtype": job.dtype, "device": job.device}
    if windows is None:
        for index, layer in enumerate(every):
            engine.solve(engine.grams, [p for p in layer if not p.shared], f"layer-{index:05d}")
        engine.solve(engine.grams, list(alone.values()), "shared")
        return engine
    if alone:
        engine.changed |= _shared(
            model, engine, list(alone.values()), batches, settings, told("looking at shared blocks")
        )
    walk(
        model,
        batches,
        [engine.grams],
        edit=engine.edit,
        changed=engine.changed,
        together=together,
        journal=work / "walk",
        progress=told(f"{method.name}, layer by layer"),
        **settings,
    )
    return engine


def _shared(
    model: Model,
    engine: Engine,
    alone: Sequence[Place],
    batches: Sequence[torch.Tensor],
    settings: Mapping[str, Any],
    progress: Callable[[int, int], None] | None,
) -> dict[str, torch.Tensor]:
    """Weights that several layers use, solved on all of them; kept beside the work for a run that resumes."""
    kept = engine.work / "shared" / "dense.safetensors"
    if kept.is_file():
        found: dict[str, torch.Tensor] = load_file(kept)
        return found
    together = Grams(engine.grams.needs, len(batches), lambda p: p.shared)
    walk(model, batches, [together], journal=engine.work / "shared", progress=progress, **settings)
    dense = engine.solve(together, alone, "shared")
    if is_main():
        kept.parent.mkdir(exist_ok=True)
        save_file(dense, kept.with_suffix(".part"))
        kept.with_suffix(".part").replace(kept)
    return dense


def _identity(model: Model, windows: torch.Tensor | None, method: Method, settings: Any, job: Job) -> dict[str, Any]:
    """What makes an unfinished run this one."""
    import hashlib

    text = None if windows is None else hashlib.sha256(windows.numpy().tobytes()).hexdigest()
    return {
        "config": model.config_sha256,
        "files": {name: path.stat().st_size for name, path in model.weights.files.items()},
        "windows": text,
        "step": job.step,
        "method": method.name,
        "settings": said(settings),
        "batch": job.batch,
        "dtype": str(job.dtype),
        "residual": job.residual,
        "sequential": job.sequential,
    }


def said(settings: Any) -> Any:
    """Settings as JSON."""
    return json.loads(json.dumps(asdict(settings) if is_dataclass(settings) else settings, default=str))  # type: ignore[arg-type]


def _record(
    model: Model, windows: torch.Tensor | None, method: Method, settings: Any, job: Job, about: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "step": job.step,
        "method": method.name,
        "settings": said(settings),
        "text": {**(about or {}), "windows": None if windows is None else list(windows.shape), "batch": job.batch},
        "sequential": job.sequential,
        "parent": {"source": model.source, "config_sha256": model.config_sha256},
    }
