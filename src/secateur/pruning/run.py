"""prune: a parent checkpoint and a plan in, a smaller standard checkpoint out, streamed tensor by tensor."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from secateur.calibration.stats import Stats
from secateur.checkpoint import TensorSpec, publish, require_space, scratch, write_json, write_tensors
from secateur.checkpoint.hashing import FileHasher
from secateur.checkpoint.passengers import copy_passengers, list_passengers
from secateur.checkpoint.store import INDEX
from secateur.errors import UsageError
from secateur.importance import MEASURED, keep_best
from secateur.importance.document import IMPORTANCE, document
from secateur.model import Model, open_model
from secateur.pruning.budget import cost
from secateur.pruning.choose import VocabChoice, choose_layers, choose_vocabulary, chosen_units, score_units
from secateur.pruning.cut import Cut, Target
from secateur.pruning.norms import NormMode
from secateur.pruning.plan import Plan
from secateur.pruning.provenance import FILE, record
from secateur.pruning.removed import parse_unit
from secateur.pruning.shape import resolve
from secateur.pruning.silenced import Silenced, dead
from secateur.pruning.vocab_ids import apply_edits

#: Told the bytes written so far and in all.
Progress = Callable[[int, int], None]
SLAB_BYTES = 64 << 20
"""Larger tensors are cut in slabs of rows."""
_RECORD_BYTES = 2 << 20, 1 << 10
"""Room for config.json, index and secateur.json: in all, and per tensor."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to cut. ``score``: criterion; ``norm``: see :mod:`secateur.pruning.norms`; ``shard_bytes``: size of files;
    ``layer_score``: by what layers go where a plan gives their number ('' = as ``score`` does).
    """

    score: str = "magnitude"
    seed: int = 0
    norm: NormMode = "auto"
    mask: bool = False
    shard_bytes: int = 5 * 10**9
    overwrite: bool = False
    layer_score: str = ""


def prune(
    model: Model,
    plan: Plan,
    out: Path,
    settings: Settings | None = None,
    *,
    stats: Stats | None = None,
    texts: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Model:
    """Cut ``model`` to ``plan`` and write the result to ``out``; returns it opened.

    ``out`` holds a whole checkpoint or nothing. Memory: a few tensors at a time. ``stats``: what measured criteria
    score on. ``texts``: on what to count tokens when the vocabulary is trimmed. With ``settings.mask`` the parent's
    shape is kept and the units are zeroed instead.
    Raises SecateurError before anything is written when the plan, the score or the files do not allow the cut.
    """
    settings = settings or Settings()
    units = [parse_unit(text, model.anatomy) for text in plan.removed]
    model = Silenced(model, units) if units else model
    with scratch(out) as beside:
        cut, vocab, curves = _prepare(model, plan, out, settings, beside, stats, texts)
        targets = list(cut.targets())
        specs = _specs(model, targets, masked=settings.mask)
        total = sum(s.nbytes for _, s in specs)
        require_space(out, total + _bytes_beside(model))
        with publish(out, overwrite=settings.overwrite) as staging:
            hashes = _write(model, cut, specs, staging, settings, total, progress)
            files = _write_files(model, cut, vocab, beside, staging, settings)
            sizes, layers = (cut.new_sizes, cut.layers)
            before = cost(model, model.anatomy.sizes, range(model.anatomy.n_layers)).to_json()
            after = before if settings.mask else cost(model, sizes, layers).to_json()
            about = {"score": settings.score, "seed": settings.seed, "mask": settings.mask, "norm": settings.norm}
            entry = record(model, cut, targets, hashes=hashes, settings=about, files=files, before=before, after=after)
            if units:
                stored = units, cut.layers, model.anatomy, model.anatomy if settings.mask else cut.child
                entry["removed"] = {"units": list(plan.removed), "dead": dead(*stored)}
            write_json(staging / FILE, entry)
            if curves is not None:
                write_json(staging / IMPORTANCE, curves)
    return open_model(out)


def _prepare(
    model: Model,
    plan: Plan,
    out: Path,
    settings: Settings,
    beside: Path,
    stats: Stats | None,
    texts: Sequence[str] | None,
) -> tuple[Cut, VocabChoice | None, dict[str, Any] | None]:
    """Everything that can be refused, before any byte is written; and the scores, where text decided."""
    store = model.weights
    if out.resolve() == model.folder.resolve():
        raise UsageError(f"--out {out} is the parent itself, which is never overwritten; choose another folder")
    if store.tensors and plan.config_sha256 != model.config_sha256:
        raise UsageError(f"the plan was made for another config than that of {model.source}; plan again")
    sizes = resolve(model.anatomy, plan.keep)
    if settings.mask and any(
        a in model.anatomy.family.functional and sizes[a] != model.anatomy.sizes[a] for a in model.anatomy.live
    ):
        raise UsageError(
            "a mask cannot silence experts: a zeroed router row still draws tokens",
            hint="compare expert cuts through their logits, or mask the other axes only",
        )
    layers = plan.layers
    if isinstance(layers, int):
        layers = choose_layers(model, layers, settings.layer_score or settings.score, settings.seed, stats)
    vocab = None
    if "v" in sizes and sizes["v"] != model.anatomy.sizes["v"]:
        vocab = choose_vocabulary(model, sizes["v"], beside, texts)
    scores = {} if plan.kept is not None else score_units(model, sizes, settings.score, settings.seed, stats)
    if isinstance(model, Silenced):
        scores = model.ranked(scores)
    keep = keep_best(model.anatomy, scores, sizes) if plan.kept is None else chosen_units(model, plan.kept, sizes)
    curves = document(model.anatomy, settings.score, scores) if settings.score in MEASURED and scores else None
    if vocab is not None:
        keep.set("v", "", list(vocab.rows))
    return Cut(model.anatomy, keep, layers, norm=settings.norm), vocab, curves


def _bytes_beside(model: Model) -> int:
    """Bytes that the files beside the weights take, from above."""
    carried = (model.folder / p.name for p in list_passengers(model.folder) if p.action == "carried")
    base, each = _RECORD_BYTES
    return base + each * len(model.weights.tensors) + sum(path.stat().st_size for path in carried)


def _specs(model: Model, targets: Sequence[Target], *, masked: bool) -> list[tuple[Target, TensorSpec]]:
    """Child tensors in the parent's order on disk, which makes reading sequential."""
    order = {name: i for i, name in enumerate(model.weights.tensors)}
    out = []
    for t in sorted(targets, key=lambda t: order[t.decl.name]):
        info = model.weights.tensors[t.decl.name]
        if masked:
            out.append((t, TensorSpec(t.decl.name, info.dtype, info.shape)))
        elif t.name is not None:
            out.append((t, TensorSpec(t.name, info.dtype, t.shape)))
    return out


def _write(
    model: Model,
    cut: Cut,
    specs: Sequence[tuple[Target, TensorSpec]],
    staging: Path,
    settings: Settings,
    total: int,
    progress: Progress | None,
) -> dict[str, str]:
    """Stream every tensor; returns the sha256 of the parent's files, hashed while they pass."""
    by_name = {spec.name: target for target, spec in specs}
    store = model.weights
    done = 0

    def produce(spec: TensorSpec) -> torch.Tensor | Iterator[torch.Tensor]:
        target = by_name[spec.name]
        info = store.tensors[target.decl.name]
        if info.nbytes <= SLAB_BYTES or settings.mask:
            t = model.read(info.name)
            return cut.mask(target, t) if settings.mask else cut.apply(target, t)
        rows = max(1, SLAB_BYTES * info.shape[0] // info.nbytes)
        return cut.stream(target, partial(model.read_rows, info.name), rows)

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(done, total)

    with _one_thread(), FileHasher(store.files) as hasher:
        store.watcher = hasher.follow
        try:
            write_tensors(staging, [s for _, s in specs], produce, shard_bytes=settings.shard_bytes, progress=advance)
        finally:
            store.watcher = None
        return hasher.digests()


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch on one thread for a while: reading, hashing and writing have theirs.

    Its second thread saved no time and cost, mostly by spinning, 0.3 s of processor time per GB that the hash needs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _write_files(
    model: Model, cut: Cut, vocab: VocabChoice | None, beside: Path, staging: Path, settings: Settings
) -> dict[str, str]:
    """config.json and everything that is no tensor; returns what became of each file of the parent."""
    config: dict[str, Any] = dict(cut.parent.raw if settings.mask else cut.config)
    trimmed: Mapping[str, str] = {}
    if vocab is not None and vocab.trim is not None and not settings.mask:
        apply_edits(config, vocab.config_edits)
        for name in vocab.trim.files:
            shutil.copy2(beside / name, staging / name)
        trimmed = dict.fromkeys(vocab.trim.files, "trimmed") | {n: f"left: {w}" for n, w in vocab.trim.left.items()}
    write_json(staging / "config.json", config)
    passengers = [p for p in list_passengers(model.folder) if p.name not in trimmed]
    copy_passengers(model.folder, staging, passengers)
    said = {p.name: p.action if p.action == "carried" else f"left: {p.reason}" for p in passengers}
    weights = dict.fromkeys(said.keys() & {*model.weights.files, INDEX}, "masked" if settings.mask else "cut")
    return said | weights | {"config.json": "copied" if settings.mask else "edited"} | dict(trimmed)
