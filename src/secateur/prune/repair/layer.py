"""Repairs of one layer: fitted norm factors, then least squares for every linear that writes the residual stream.

Each repair is fitted on some batches of the *compressed* stream and judged on others: it stays only when it lowers the
layer's error there, || parent stream (kept channels) - child stream ||^2 after the layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from secateur.anatomy import layout as lo
from secateur.calibrate.walker import Layer
from secateur.prune.cut import Cut
from secateur.prune.repair.pair import Pair, captured
from secateur.prune.repair.ridge import Sums, fitted_scale, solve
from secateur.prune.select import flat_index


@dataclass(frozen=True, slots=True)
class Repair:
    """One attempt. ``before`` / ``after``: relative error of the layer's output on the judging batches."""

    layer: int
    tensor: str
    method: str
    before: float
    after: float

    @property
    def applied(self) -> bool:
        """Whether it stayed: only a repair that lowers the error does."""
        return self.after < self.before


@dataclass
class LayerRepair:
    """Repairs layer after layer as :func:`secateur.prune.repair.pair.walk_pair` visits them.

    ``methods``: any of "norm", "least-squares". ``damp``: ridge, relative to the Gram's mean diagonal. ``feedback``:
    aim at the parent's stream, so that a layer also makes up for what earlier layers lost. ``changed``: on-disk names
    and new tensors of the child.
    """

    cut: Cut
    methods: tuple[str, ...] = ("norm", "least-squares")
    damp: float = 1e-2
    feedback: bool = True
    log: list[Repair] = field(default_factory=list)
    changed: dict[str, torch.Tensor] = field(default_factory=dict)

    def __call__(self, pair: Pair) -> None:
        targets = [pair.run("parent", b)[..., pair.rows] for b in pair.batches]
        judge = list(pair.batches)[3::4] or list(pair.batches)
        fit = [b for b in pair.batches if b not in judge] or judge
        error = self._error(pair, targets, judge)
        if "norm" in self.methods:
            for name, module in norms(pair.child):
                apply = functools.partial(self._norm, pair, module, name, fit)
                error = self._try(pair, (name, "norm factor"), apply, error, targets, judge)
        if "least-squares" in self.methods:
            for name, linear in writers(pair.child):
                apply = functools.partial(self._ridge, pair, linear, name, targets, fit)
                error = self._try(pair, (name, "least squares"), apply, error, targets, judge)

    def _error(self, pair: Pair, targets: list[torch.Tensor], judge: list[int]) -> float:
        """Relative error of the child's stream after the layer, on the judging batches."""
        off = sum(float((pair.run("child", b) - targets[b]).double().square().sum()) for b in judge)
        return off / max(sum(float(targets[b].double().square().sum()) for b in judge), 1e-30)

    def _try(
        self,
        pair: Pair,
        what: tuple[str, str],
        apply: Callable[[], None],
        error: float,
        targets: list[torch.Tensor],
        judge: list[int],
    ) -> float:
        """Apply one repair, keep it if the judging batches agree; returns the error that holds now."""
        name, method = what
        module = pair.child.module(name)
        assert module is not None
        saved = {k: p.detach().clone() for k, p in module.named_parameters(recurse=False)}
        apply()
        after = self._error(pair, targets, judge)
        attempt = Repair(pair.child.index, name, method, error, after)
        self.log.append(attempt)
        if not attempt.applied:
            for k, old in saved.items():
                getattr(module, k).data.copy_(old)
            return error
        prefix = pair.child.anatomy.layer_prefix(pair.child.index) + name.rpartition(".")[0]
        for k, p in module.named_parameters(recurse=False):
            self.changed[f"{prefix}.{k}"] = p.detach().clone()
        return after

    def _norm(self, pair: Pair, module: nn.Module, name: str, fit: list[int]) -> None:
        """Multiply the norm's effective weight by the scale that brings its output closest to the parent's."""
        other = pair.parent.module(name)
        if other is None:
            return
        want, got = [], []
        for b in fit:
            with captured(other) as seen:
                pair.run("parent", b)
                want.append(seen["out"])
            with captured(module) as seen:
                pair.run("child", b)
                got.append(seen["out"])
        kept = self._kept_channels(pair.parent, name)
        want = [w[..., kept] for w in want]
        g = fitted_scale(torch.cat([w.reshape(-1) for w in want]), torch.cat([x.reshape(-1) for x in got]))
        offset = 1.0 if _stored_minus_one(pair.child, name) else 0.0
        weight: torch.Tensor = module.weight  # type: ignore[assignment]
        weight.data.copy_((weight.data.double() + offset) * g - offset)

    def _kept_channels(self, parent: Layer, name: str) -> torch.Tensor:
        """Channels of the parent's norm that the child still has, in the child's order."""
        node = next(layout.dims[0] for _, _, n, layout in parent.anatomy.layer_tensors(parent.index) if n == name)
        anatomy = parent.anatomy
        lookup = self.cut.keep.lookup(parent.index)
        return torch.from_numpy(flat_index(node, lookup, anatomy.sizes, anatomy.parents, {}))

    def _ridge(self, pair: Pair, module: nn.Linear, name: str, targets: list[torch.Tensor], fit: list[int]) -> None:
        """Least squares of the linear's output towards what the layer still lacks."""
        sums = Sums.zeros(module.in_features, module.out_features)
        gain = self._gain(pair, module, fit[0])
        for b in fit:
            with captured(module) as seen:
                out = pair.run("child", b)
            if self.feedback and gain is not None:
                # the layer adds gain * output to the stream: the output must grow by what the stream lacks
                sums.add(seen["in"], seen["out"] + (targets[b] - out) / gain)
            else:
                sums.add(seen["in"], self._parent_output(pair, name, b))
        weight, bias = solve(sums, module.weight.data, damp=self.damp, with_bias=module.bias is not None)
        module.weight.data.copy_(weight)
        if bias is not None:
            module.bias.data.copy_(bias)

    def _parent_output(self, pair: Pair, name: str, batch: int) -> torch.Tensor:
        other = pair.parent.module(name)
        assert other is not None
        with captured(other) as seen:
            pair.run("parent", batch)
        return seen["out"][..., pair.rows]

    def _gain(self, pair: Pair, module: nn.Linear, batch: int) -> float | None:
        """d stream / d output of the linear, when it is one number (no norm or gate in between); found by a nudge."""
        with captured(module) as seen:
            plain = pair.run("child", batch)
        step = 1e-2 * float(seen["out"].std())
        handle = module.register_forward_hook(lambda m, args, out: out + step)
        try:
            moved = pair.run("child", batch) - plain
        finally:
            handle.remove()
        last = moved[..., -1, :].double() / step  # causal layers downstream of the linear could mix earlier tokens
        mean = float(last.mean())
        return mean if abs(mean) > 1e-6 and float((last - mean).abs().max()) < 1e-2 * abs(mean) else None


def writers(layer: Layer) -> Iterator[tuple[str, nn.Linear]]:
    """Linears whose output enters the residual stream, in the order of the layer's sub-blocks."""
    for _, _, name, layout in layer.anatomy.layer_tensors(layer.index):
        module = layer.module(name)
        if (
            name.endswith(".weight")
            and len(layout.dims) == 2
            and layout.dims[0] == lo.Axis("d")
            and isinstance(module, nn.Linear)
        ):
            yield name, module


def norms(layer: Layer) -> Iterator[tuple[str, nn.Module]]:
    """Norms with a weight, in order."""
    for _, _, name, layout in layer.anatomy.layer_tensors(layer.index):
        module = layer.module(name)
        if module is not None and lo.norm_extent(layout, layer.anatomy.sizes) is not None:
            yield name, module


def _stored_minus_one(layer: Layer, name: str) -> bool:
    return any(n == name and layout.norm == "1+" for _, _, n, layout in layer.anatomy.layer_tensors(layer.index))
