"""Repairs of one layer: fitted norm factors, then least squares for every linear that writes the residual stream.

Each repair is fitted on some batches of the *compressed* stream and judged on others: it stays only when it lowers the
layer's error there, || parent stream (kept channels) - child stream ||^2 after the layer.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from secateur.anatomy import layout as lo
from secateur.calibration.observer import Layer
from secateur.checkpoint import DTYPES
from secateur.errors import UsageError
from secateur.pruning.cut import Cut
from secateur.pruning.repair.evidence import Evidence
from secateur.pruning.repair.pair import Pair, captured, hooked
from secateur.pruning.repair.ridge import fitted_scale
from secateur.pruning.repair.strength import held_back
from secateur.pruning.select import flat_index

METHODS = ("norm", "least-squares")
Facts = dict[str, float] | None
SCALE_ENTRIES = 1 << 22
"""Outputs of a norm from which its one factor is fitted: more change it by less than the judging text can see."""


@dataclass(frozen=True, slots=True)
class Repair:
    """One attempt. ``before`` / ``after``: relative error of the layer's output on the judging batches. ``damp``: the
    ridge of least squares."""

    layer: int
    tensor: str
    method: str
    before: float
    after: float
    damp: float | None = None

    @property
    def applied(self) -> bool:
        """Whether it stayed: only a repair that lowers the error does."""
        return self.after < self.before


def split(batches: Sequence[int]) -> tuple[list[int], list[int]]:
    """(fitting, judging) batches, never the same: every fourth judges, or the last of fewer.

    Raises UsageError with fewer than two.
    """
    if len(batches) < 2:
        raise UsageError(f"{len(batches)} batches of text, expected at least 2: some fit, others judge")
    judge = list(batches)[3::4] or list(batches)[-1:]
    return [b for b in batches if b not in judge], judge


@dataclass(frozen=True, slots=True)
class Written:
    """A linear that adds ``gain`` times its output to the stream: what it read and put out in one run of the layer, and
    what the layer put out. With other weights the layer's output is known without another run."""

    linear: nn.Linear
    gain: float
    read: torch.Tensor
    put: torch.Tensor
    plain: torch.Tensor

    def output(self) -> torch.Tensor:
        """Of the layer, with the weights that the linear has now."""
        now: torch.Tensor = self.linear(self.read)
        return self.plain + self.gain * (now - self.put)

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.read, self.put, self.plain))


@dataclass(frozen=True, slots=True)
class Task:
    """One layer under repair. ``outputs``: what the child's layer puts out for the judging batches, as it was last
    measured. ``written``: for some of the others, what their output follows from, while that linear is the last one
    that was changed."""

    pair: Pair
    fit: list[int]
    judge: list[int]
    outputs: dict[int, torch.Tensor] = field(default_factory=dict)
    written: dict[int, Written] = field(default_factory=dict)

    @classmethod
    def of(cls, pair: Pair) -> Task:
        return cls(pair, *split(pair.batches))

    def error(self) -> float:
        """Relative error of the child's stream after the layer, on the judging batches."""
        off = all_ = 0.0
        for b in self.judge:
            target = self.pair.target(b)
            self.outputs[b] = self.pair.run("child", b)
            off += float((self.outputs[b] - target).double().square().sum())
            all_ += float(target.double().square().sum())
        return off / max(all_, 1e-30)


@dataclass
class LayerRepair:
    """Repairs layer after layer as :func:`secateur.pruning.repair.pair.walk_pair` visits them.

    ``methods``: any of :data:`METHODS`. ``damp``: ridge, relative to the Gram's mean diagonal; None: for every linear
    the one that predicts text held back best. ``feedback``: aim at the parent's stream where the linear's output enters
    it unchanged, so that a layer also makes up for what earlier layers lost. ``changed``: on-disk names and new tensors
    of the child, kept wherever the mapping keeps them.
    """

    cut: Cut
    methods: tuple[str, ...] = METHODS
    damp: float | None = None
    feedback: bool = True
    log: list[Repair] = field(default_factory=list)
    changed: MutableMapping[str, torch.Tensor] = field(default_factory=dict)

    def __call__(self, pair: Pair) -> Mapping[int, torch.Tensor]:
        task = Task.of(pair)
        error = task.error()
        if "norm" in self.methods:
            found = list(norms(pair.child))
            for name, module in found:
                fitted = functools.partial(self._norm, task, module, name, last=name == found[-1][0])
                error = self._try(task, name, "norm factor", fitted, error)
        if "least-squares" in self.methods:
            for name, linear in writers(pair.child):
                apply = functools.partial(self._ridge, task, linear, name)
                error = self._try(task, name, "least squares", apply, error)
        return task.outputs | {b: written.output() for b, written in task.written.items()}

    def _try(self, task: Task, name: str, method: str, apply: Callable[[], Facts], error: float) -> float:
        """Apply one repair, keep it if the judging batches agree; returns the error that holds now.

        ``apply`` says what the log should know, or None where nothing can be repaired. Judged as it will be stored:
        rounded to the dtype the tensor has on disk.
        """
        child = task.pair.child
        module = child.module(name)
        assert module is not None
        saved = {k: p.detach().clone() for k, p in module.named_parameters(recurse=False)}
        facts = apply()
        if facts is None:
            return error
        prefix = child.anatomy.layer_prefix(child.index) + name.rpartition(".")[0]
        stored = task.pair.child_stream.skeleton.source
        for k, p in module.named_parameters(recurse=False):
            p.data.copy_(p.data.to(DTYPES[stored.dtype(f"{prefix}.{k}")][0]))
        outputs = dict(task.outputs)
        attempt = Repair(child.index, name, method, error, task.error(), **facts)
        self.log.append(attempt)
        if not attempt.applied:
            task.outputs.update(outputs)
            for k, old in saved.items():
                getattr(module, k).data.copy_(old)
            return error
        for k, p in module.named_parameters(recurse=False):
            self.changed[f"{prefix}.{k}"] = p.detach().clone()
        return attempt.after

    def _norm(self, task: Task, module: nn.Module, name: str, *, last: bool) -> Facts:
        """Multiply the norm's effective weight by the scale that brings its output closest to the parent's. ``last``:
        no norm behind it will be fitted."""
        pair = task.pair
        other, kept = pair.parent.module(name), self._kept_channels(pair.parent, name)
        if other is None:
            return None

        def outputs() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            seen = 0
            for b in task.fit:
                if seen >= SCALE_ENTRIES:
                    return
                want = pair.read("parent", b, other, through=last)["out"][..., kept]
                got = pair.read("child", b, module)["out"]
                seen += got.numel()
                yield want, got

        want, got = first = next(pairs := outputs())
        if want.shape != got.shape:
            return None  # a norm inside units of which some are gone (per-head q and k norms)
        g = fitted_scale(itertools.chain([first], pairs))
        offset = 1.0 if _stored_minus_one(pair.child, name) else 0.0
        weight: torch.Tensor = module.weight  # type: ignore[assignment]
        weight.data.copy_((weight.data.double() + offset) * g - offset)
        return {}

    def _kept_channels(self, parent: Layer, name: str) -> torch.Tensor:
        """Channels of the parent's norm that the child still has, in the child's order."""
        node = next(layout.dims[0] for _, _, n, layout in parent.anatomy.layer_tensors(parent.index) if n == name)
        anatomy = parent.anatomy
        lookup = self.cut.keep.lookup(parent.index)
        return torch.from_numpy(flat_index(node, lookup, anatomy.sizes, anatomy.parents, {}))

    def _ridge(self, task: Task, module: nn.Linear, name: str) -> Facts:
        """Least squares of the linear's output towards what the layer still lacks.

        Where something lies between the output and the stream, the target is the output of the parent's twin.
        """
        pair = task.pair
        twin, gain = pair.parent.module(name), None
        aside = (
            0
            if self.damp is not None
            else held_back(sum(pair.child_stream.hidden[b][..., 0].numel() for b in task.fit))
        )
        tokens = Evidence(module.in_features, module.out_features, aside)
        room = 8 * module.in_features**2  # as a Gram takes
        task.written.clear()
        for b in task.fit:
            with captured(module) as seen:
                out = pair.run("child", b)
            if b == task.fit[0]:
                gain = stream_gain(pair, module, b, seen["out"], out) if self.feedback else None
                if gain is None and twin is None:
                    return None
            if gain is not None:
                # the layer adds gain * output to the stream: the output must grow by what the stream lacks
                tokens.add(seen["in"], seen["out"] + (pair.target(b) - out) / gain)
                known = Written(module, gain, seen["in"], seen["out"], out)
                if (room := room - known.nbytes) >= 0:
                    task.written[b] = known
            elif twin is not None:
                tokens.add(seen["in"], pair.read("parent", b, twin)["out"][..., pair.rows])
        if not tokens.finite:
            return None
        before, with_bias = module.weight.data, module.bias is not None
        damp = tokens.choose(before, with_bias=with_bias) if self.damp is None else self.damp
        weight, bias = tokens.solve(before, damp=damp, with_bias=with_bias)
        module.weight.data.copy_(weight)
        if bias is not None:
            module.bias.data.copy_(bias)
        return {"damp": damp}


def stream_gain(pair: Pair, module: nn.Linear, batch: int, given: torch.Tensor, plain: torch.Tensor) -> float | None:
    """The number g by which a linear's output is multiplied when the layer adds it to the stream, None when it is not.
    ``given``: the linear's output on this batch, ``plain``: the layer's.

    Found by nudging the output by noise of its own size, another number in every channel of every token: a norm, a
    gate, another linear or a mixing of tokens on the way all give a response that is no multiple of the noise. A
    sub-block that answers with less than a hundredth of it is taken for silence.
    """
    noise = torch.randn(given.shape, generator=torch.Generator().manual_seed(batch))
    noise = noise.to(given) * given.std()
    with hooked(module, lambda m, args, out: out + noise):
        moved = (pair.run("child", batch) - plain).double()
    energy = float(noise.double().square().sum())
    if not energy or moved.shape != noise.shape:
        return None
    gain = float((moved * noise).sum()) / energy
    rest = float((moved - gain * noise).square().sum())
    return gain if gain and rest <= (1e-2 * gain) ** 2 * energy else None


def writers(layer: Layer) -> Iterator[tuple[str, nn.Linear]]:
    """Linears whose output enters the residual stream, in the order of the layer's sub-blocks."""
    for name, layout in _own_tensors(layer):
        module = layer.module(name)
        if (
            name.endswith(".weight")
            and len(layout.dims) == 2
            and layout.dims[0] == lo.Axis("d")
            and isinstance(module, nn.Linear)
            and _same_names(layer, name, module)
        ):
            yield name, module


def norms(layer: Layer) -> Iterator[tuple[str, nn.Module]]:
    """Norms with a weight, in order."""
    for name, layout in _own_tensors(layer):
        module = layer.module(name)
        if module is None or lo.norm_extent(layout, layer.anatomy.sizes) is None:
            continue
        if hasattr(module, "weight") and _same_names(layer, name, module):
            yield name, module


def _own_tensors(layer: Layer) -> Iterator[tuple[str, lo.Layout]]:
    """A layer's tensors but those of a block it shares: other layers would see them change."""
    shared = layer.anatomy.family.shared
    for _, _, name, layout in layer.anatomy.layer_tensors(layer.index):
        if shared is None or not name.startswith(shared.prefix):
            yield name, layout


def _same_names(layer: Layer, name: str, module: nn.Module) -> bool:
    """Whether the parameters of a module have the names they have on disk (transformers renames some)."""
    prefix = layer.anatomy.layer_prefix(layer.index) + name.rpartition(".")[0]
    return all(f"{prefix}.{k}" in layer.anatomy.tensors for k, _ in module.named_parameters(recurse=False))


def _stored_minus_one(layer: Layer, name: str) -> bool:
    return any(n == name and layout.norm == "1+" for _, _, n, layout in layer.anatomy.layer_tensors(layer.index))
