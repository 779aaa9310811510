"""Units out of a model in memory, for the length of a ``with`` block; weights stay as they are.

Whole layers hand the stream on, sub-blocks write zeros, channels read zeros, and a scan gives back its input
y := x (behind convolution and SiLU), through the same door as the fast kernels (:mod:`secateur.kernels.context`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy
from secateur.calibration.channels import holder
from secateur.calibration.observer import Layer
from secateur.errors import CheckpointError, UsageError
from secateur.kernels import fast
from secateur.kernels.adapters import Kernel
from secateur.pruning.removed import CHANNELS, FFN, LAYER, SCAN, Unit, block_patterns, channel_slot


def _mamba2(
    hidden_states: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, return_final_states: bool = False
) -> Tensor:
    """hidden_states (b, t, h, p)."""
    _no_cache(return_final_states)
    return hidden_states


def _mamba1(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    return_last_state: bool = False,
) -> Tensor:
    """hidden_states and z (b, d, t)."""
    _no_cache(return_last_state)
    return hidden_states if z is None else hidden_states * functional.silu(z)


def _no_cache(wanted: bool) -> None:
    if wanted:
        raise UsageError("a model with removed scans does not decode through a cache; prune it first")


#: What stands in for a scan that is gone, by the name of the function of transformers.
SILENT = {"mamba2_chunk_scan": Kernel(_mamba2), "mamba_selective_scan": Kernel(_mamba1)}


@contextlib.contextmanager
def removed(layers: nn.ModuleList, anatomy: Anatomy, units: Iterable[Unit], arity: Mapping[int, int]) -> Iterator[None]:
    """``units`` out of ``layers``. ``arity``: see :func:`answering`."""
    with contextlib.ExitStack() as stack:
        for unit in units:
            layer = Layer(unit.layer, anatomy.kinds[unit.layer], layers[unit.layer], anatomy)
            if unit.part == LAYER:
                stack.enter_context(answering(layer.block, lambda states: states, arity[unit.layer]))
            elif unit.part == SCAN:
                stack.enter_context(_without_scan(layer))
            elif unit.part == CHANNELS:
                stack.enter_context(_without_channels(layer, unit))
            else:
                stack.enter_context(_without_block(layer, unit.part))
        yield


@contextlib.contextmanager
def answering(block: nn.Module, answer: Callable[[Tensor], Tensor], arity: int) -> Iterator[None]:
    """``block`` computes nothing: ``answer`` (of the stream before it) is what comes out, in the block's own form.

    ``arity``: 0 when the block returns a tensor, else the length of its tuple.
    """

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        out = answer(hidden_states)
        return (out, *[None] * (arity - 1)) if arity else out

    before = vars(block).get("forward")
    block.forward = forward
    try:
        yield
    finally:
        if before is None:
            del block.forward
        else:
            block.forward = before


@contextlib.contextmanager
def _without_scan(layer: Layer) -> Iterator[None]:
    with fast(layer.block, SILENT) as report:
        if not report.taken:
            raise CheckpointError(f"layer {layer.index}: its scan is no function that can be replaced: {report}")
        yield


@contextlib.contextmanager
def _without_block(layer: Layer, slot: str) -> Iterator[None]:
    """Every module of the sub-block writes zeros."""
    handles = [module.register_forward_hook(_zeros) for module in _modules(layer, slot)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _modules(layer: Layer, slot: str) -> list[nn.Module]:
    """The modules of a sub-block by their names on disk; where transformers renames them, those nothing else claims."""
    slots = [s.name for s in layer.anatomy.family.slots]
    names = {s: {n.partition(".")[0] for n, _ in block_patterns(layer.anatomy, layer.index, s)} for s in slots}
    children = {n: m for n, m in layer.block.named_children() if isinstance(m, nn.Module)}
    found = [m for n, m in children.items() if n in names[slot]]
    if not found:
        every = {n.partition(".")[0] for n in layer.anatomy.family.every_layer}
        claimed = every.union(*(names[s] for s in slots if s != slot))
        found = [m for n, m in children.items() if n not in claimed and any(True for _ in m.parameters())]
    if not found:
        raise CheckpointError(f"layer {layer.index}: no module of its is {slot} ({', '.join(sorted(names[slot]))})")
    return found


def _zeros(module: nn.Module, args: Any, out: Any) -> Any:
    return (out[0].new_zeros(out[0].shape), *out[1:]) if isinstance(out, tuple) else out.new_zeros(out.shape)


@contextlib.contextmanager
def _without_channels(layer: Layer, unit: Unit) -> Iterator[None]:
    """The linear that reads the channels finds zeros there."""
    from transformers.pytorch_utils import Conv1D

    patterns = block_patterns(layer.anatomy, layer.index, channel_slot(layer.anatomy, layer.index) or "")
    held = [(m, la) for n, la in patterns if len(la.dims) == 2 and (m := holder(layer, n, la)) is not None]
    # Conv1D of transformers stores (inputs, outputs)
    modules = [m for m, la in held if FFN in lo.axes_of(la.dims[0 if isinstance(m, Conv1D) else 1])]
    if len(modules) != 1:
        raise CheckpointError(f"layer {layer.index}: {len(modules)} linears read the MLP's channels, expected one")

    def silence(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        x = args[0].clone()
        x[..., unit.first : unit.last] = 0
        return (x,)

    handle = modules[0].register_forward_pre_hook(silence)
    try:
        yield
    finally:
        handle.remove()


__all__ = ["SILENT", "answering", "removed"]
