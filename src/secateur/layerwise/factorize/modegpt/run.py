"""MoDeGPT on a whole checkpoint: pairs compressed layer by layer, then cut to the smaller shape the config can say.

Every layer is solved at the parent's shape, with zeros where units go, so that later layers see compressed outputs;
what is zero everywhere is then sliced by the one cutter. Pairs are found by their layouts:

    up, gate | down      Nystrom                the axis ``ffn``
    q | k, v | o         CR, joint SVD          the axis ``head_dim``, where no rotary embedding fixes it

One config field holds the sizes of all layers, so every layer keeps the same share; the paper spreads shares by block
influence. Attention whose head_dim is fixed stays whole: zeros in it would cost quality and save nothing.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from secateur.anatomy.anatomy import TensorDecl
from secateur.calibration.observer import Layer
from secateur.calibration.walker import walk
from secateur.checkpoint import DTYPES, TensorSpec, publish, require_space, write_json, write_tensors
from secateur.checkpoint.passengers import copy_passengers, list_passengers
from secateur.errors import InexpressibleError, UsageError
from secateur.layerwise.factorize.factors import root_of
from secateur.layerwise.factorize.modegpt.cr import channel_scores, kept_channels
from secateur.layerwise.factorize.modegpt.nystrom import compensated, leverage
from secateur.layerwise.factorize.modegpt.vo import joint
from secateur.layerwise.observe import Grams
from secateur.layerwise.places import Place
from secateur.layerwise.run import Job, Progress
from secateur.model import Model, open_model
from secateur.pruning.budget import cost
from secateur.pruning.cut import Cut
from secateur.pruning.keep import KeepSets
from secateur.pruning.provenance import FILE, record
from secateur.pruning.shape import resolve

DOWN, QUERY, KEY, VALUE, OUT = "d f", "(k r e) d", "(k e) d", "(k c) d", "d (k r c)"
"""Layouts of the matrices that take part."""


@dataclass
class Pairs:
    """The walk's edit. ``keep``: units kept so far; ``sizes``: what is kept of the axes f, e and c; ``work``: for the
    new tensors of finished layers; ``lines``: relative squared error of each pair, predicted."""

    model: Model
    grams: Grams
    sizes: dict[str, int]
    work: Path
    keep: KeepSets
    changed: dict[str, torch.Tensor] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def edit(self, layer: Layer) -> bool:
        """Solve the pairs of one layer."""
        by_layout = {p.decl.layout.text: p for p in self.grams.places}
        new: dict[str, torch.Tensor] = {}
        if "f" in self.sizes and DOWN in by_layout:
            new |= self._ffn(by_layout[DOWN])
        if "e" in self.sizes and VALUE in by_layout:
            new |= self._attention(layer, by_layout[VALUE])
        self.grams.forget()
        if not new:
            return False
        save_file(new, self.work / f"layer-{layer.index:05d}.safetensors")
        self.changed |= new
        layer.reload()
        for name in new:
            del self.changed[name]
        return True

    def _ffn(self, place: Place) -> dict[str, torch.Tensor]:
        found = self.grams.gram((place.name, 0))
        assert found is not None, "an MLP runs on every token"
        down = self._read(place.decl)
        kept = leverage(found.matrix).argsort(descending=True, stable=True)[: self.sizes["f"]].sort().values
        new = torch.zeros_like(down)
        new[:, kept] = compensated(down, found.matrix, kept)
        self.keep.set("f", self._scope("f", place.decl), kept.numpy())
        self._note(place.name, "nystrom", found.error(down - new) / max(found.error(down), 1e-300))
        return {place.name: self._stored(place.decl, new)}

    def _attention(self, layer: Layer, place: Place) -> dict[str, torch.Tensor]:
        found = self.grams.gram((place.name, 0))
        assert found is not None, "values are taken of every token"
        decls = {d.layout.text: d for d in self.model.anatomy.tensors.values() if d.layer == layer.index}
        s = self.model.anatomy.sizes
        k, r, e, c, d = s["k"], s["r"], s["e"], s["c"], s["d"]
        q, key = self._read(decls[QUERY]).reshape(k, r, e, d), self._read(decls[KEY]).reshape(k, e, d)
        energy = [((w @ found.matrix) * w).sum(-1) for w in (q, key)]
        scores = [channel_scores(a, b, pairs=False) for a, b in zip(*energy, strict=True)]
        kept = torch.stack([kept_channels(head, self.sizes["e"], pairs=False) for head in scores])
        self.keep.set("e", self._scope("e", decls[QUERY]), kept.numpy())
        self.keep.set("c", self._scope("c", decls[VALUE]), torch.arange(self.sizes["c"]).numpy())
        values, outputs = self._read(decls[VALUE]).reshape(k, c, d), self._read(decls[OUT]).reshape(d, k, r, c)
        root, lost, total = root_of(found.matrix), 0.0, 0.0
        new_v, new_o, n = torch.zeros_like(values), torch.zeros_like(outputs), self.sizes["c"]
        for i in range(k):
            new_v[i, :n], made, sigma = joint(values[i], outputs[:, i].permute(1, 0, 2), root, n)
            new_o[:, i, :, :n] = made.permute(1, 0, 2)
            lost, total = lost + float(sigma[n:].square().sum()), total + float(sigma.square().sum())
        self._note(decls[VALUE].name, "joint SVD of values and outputs", lost / max(total, 1e-300))
        self._note(decls[QUERY].name, "CR of queries and keys", 1 - _share(scores, kept))
        mask = torch.zeros(k, e, 1, dtype=q.dtype).scatter_(1, kept[..., None], 1.0)
        new = {
            QUERY: (q * mask[:, None]).reshape(k * r * e, d),
            KEY: (key * mask).reshape(k * e, d),
            VALUE: new_v.reshape(k * c, d),
            OUT: new_o.reshape(d, k * r * c),
        }
        return {decls[text].name: self._stored(decls[text], t) for text, t in new.items()}

    def _read(self, decl: TensorDecl) -> torch.Tensor:
        return self.model.read(decl.name).double()

    def _stored(self, decl: TensorDecl, t: torch.Tensor) -> torch.Tensor:
        return t.to(DTYPES[self.model.dtype(decl.name)][0]).contiguous()

    def _scope(self, axis: str, decl: TensorDecl) -> str:
        return self.model.anatomy.scope(axis, decl.layer)

    def _note(self, tensor: str, method: str, error: float) -> None:
        self.lines.append({"tensor": tensor, "method": method, "predicted": error})


def _share(scores: list[torch.Tensor], kept: torch.Tensor) -> float:
    """Part of the scores that stays."""
    got = sum(float(s[i].sum()) for s, i in zip(scores, kept, strict=True))
    return got / max(sum(float(s.sum()) for s in scores), 1e-300)


def modegpt(
    model: Model,
    windows: torch.Tensor,
    out: Path,
    ratio: float,
    job: Job,
    *,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Model:
    """Compress ``model`` on ``windows`` (samples, tokens) to ``ratio`` of its pairs' inner sizes, write it to ``out``.

    Returns it opened: a standard checkpoint of a smaller shape. Raises UsageError when the model has no pair whose size
    its config can say.
    """
    sizes = kept_sizes(model, ratio)
    batches = list(torch.split(windows, job.batch))
    told = None if progress is None else lambda done, total: progress("modegpt, layer by layer", done, total)
    work = Path(tempfile.mkdtemp(prefix="secateur-modegpt-"))
    try:
        grams = Grams("gram", len(batches) + 1, lambda p: p.decl.layout.text in (DOWN, VALUE) and not p.shared)
        pairs = Pairs(model, grams, sizes, work, KeepSets(model.anatomy))
        walk(
            model,
            batches,
            [grams],
            dtype=job.dtype,
            device=job.device,
            edit=pairs.edit,
            changed=pairs.changed,
            progress=told,
        )
        settings = {**(about or {}), "method": "modegpt", "ratio": ratio, "windows": list(windows.shape)}
        _write(model, pairs, out, settings, job.overwrite)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return open_model(out)


def kept_sizes(model: Model, ratio: float) -> dict[str, int]:
    """Axis -> units that stay, of those of f, e and c the config can say smaller. UsageError when there are none."""
    if not 0 < ratio <= 1:
        raise UsageError(f"ratio {ratio:g}: expected the part to keep, above 0 and up to 1")
    anatomy, found = model.anatomy, dict[str, int]()
    texts = {t.layout.text for t in anatomy.tensors.values()}
    biased = any("bias" in t.name and {"e", "c"} & set(t.layout.axes) for t in anatomy.tensors.values())
    for name, axes, there in (
        ("ffn", ("f",), DOWN in texts),
        ("head_dim", ("e", "c"), {QUERY, KEY, VALUE, OUT} <= texts and not biased),
    ):
        if there:
            with contextlib.suppress(InexpressibleError):
                sizes = resolve(anatomy, {name: max(1, round(ratio * anatomy.sizes[axes[0]]))})
                found |= {a: sizes[a] for a in axes}
    if not found:
        raise UsageError(
            f"{model.source}: modegpt finds no pair whose smaller size the config can say",
            hint="it works on MLPs, and on attention without rotary embedding; try --method svd-llm",
        )
    return found


def _write(model: Model, pairs: Pairs, out: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Slice the solved twin to its new shape; whole or not at all."""
    cut = Cut(model.anatomy, pairs.keep)
    targets = {t.name: t for t in cut.targets() if t.name is not None}
    specs = [TensorSpec(n, model.weights.tensors[t.decl.name].dtype, t.shape) for n, t in targets.items()]
    files = {name: path for path in sorted(pairs.work.glob("*.safetensors")) for name in load_file(path)}

    def produce(spec: TensorSpec) -> torch.Tensor:
        name = targets[spec.name].decl.name
        return cut.apply(targets[spec.name], load_file(files[name])[name] if name in files else model.read(name))

    require_space(out, sum(s.nbytes for s in specs))
    before = cost(model, model.anatomy.sizes, range(model.anatomy.n_layers)).to_json()
    after = cost(model, cut.new_sizes, cut.layers).to_json()
    with publish(out, overwrite=overwrite) as staging:
        write_tensors(staging, specs, produce)
        write_json(staging / "config.json", cut.config)
        passengers = copy_passengers(model.folder, staging, list_passengers(model.folder))
        said = {p.name: p.action if p.action == "carried" else f"left: {p.reason}" for p in passengers}
        entry = record(
            model, cut, list(cut.targets()), hashes={}, settings=settings, files=said, before=before, after=after
        )
        entry |= {"step": "factorize", "method": "modegpt"}
        entry["audit"] |= {"linears": pairs.lines}
        write_json(staging / FILE, entry)
