"""Switch the fast paths on for one model, for the length of a ``with`` block.

transformers' mixers call their scans and convolutions as functions of their module: ``causal_conv1d_fn``,
``mamba2_chunk_scan`` and so on. A module of the model is taken when its ``forward`` calls such a name; it then gets,
on this instance only, the same forward code bound to globals in which those names are the fast paths. Everything else
(projections, masks, caches, the single-token decode step) stays the code of transformers, no class or module of
transformers is touched, and other models in the process are unaffected.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from secateur.kernels.adapters import KERNELS, Kernel
from secateur.kernels.gated_norm import in_pieces, is_gated_norm


@dataclass(frozen=True)
class Taken:
    """A module that runs fast paths: its name in the model, its class, the functions replaced."""

    name: str
    module: str
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class Left:
    """A recurrent module that stays as it was, and why."""

    name: str
    module: str
    reason: str


@dataclass(frozen=True)
class FastReport:
    """What :func:`fast` did to a model."""

    taken: tuple[Taken, ...]
    left: tuple[Left, ...]

    def __str__(self) -> str:
        lines = [f"{t.name} ({t.module}): {', '.join(t.kernels)}" for t in self.taken]
        return "\n".join(lines + [f"{m.name} ({m.module}) left: {m.reason}" for m in self.left])


@contextmanager
def fast(model: nn.Module, kernels: Mapping[str, Kernel] = KERNELS) -> Iterator[FastReport]:
    """Runs ``model``'s recurrent layers on the fast paths inside the block, forward and backward, with or without a
    cache.

    Yields which modules were taken and which recurrent ones were left. The model is as before when the block ends,
    also by an exception; blocks may be nested.
    """
    taken: list[Taken] = []
    left: list[Left] = []
    undo: list[tuple[nn.Module, str, Any]] = []
    try:
        for name, module in model.named_modules():
            outcome = _replace(module, kernels, undo)
            if isinstance(outcome, tuple):
                taken.append(Taken(name, type(module).__name__, outcome))
                for norm in filter(is_gated_norm, module.children()):
                    undo.append((norm, "forward", vars(norm).get("forward")))
                    norm.forward = in_pieces(norm.forward)
            elif outcome is not None:
                left.append(Left(name, type(module).__name__, outcome))
        inside = tuple(f"{t.name}." for t in taken)
        yield FastReport(tuple(taken), tuple(m for m in left if not m.name.startswith(inside)))
    finally:
        for module, attribute, before in reversed(undo):
            if before is None:
                delattr(module, attribute)
            else:
                setattr(module, attribute, before)


def _replace(
    module: nn.Module, kernels: Mapping[str, Kernel], undo: list[tuple[nn.Module, str, Any]]
) -> tuple[str, ...] | str | None:
    """Rebinds one module's forward. Returns the names replaced, why a recurrent module was left, or None for any
    other."""
    # accelerate's hooks keep the model's own forward under this name and call it from theirs
    attribute = "_old_forward" if "_old_forward" in vars(module) else "forward"
    before = vars(module).get(attribute)
    method = getattr(module, attribute)
    code = inspect.unwrap(method)
    if not isinstance(method, MethodType) or not hasattr(code, "__code__"):
        return "its forward is not a plain method" if _is_recurrent(module) else None
    stocks = {
        name: code.__globals__[name] for name in kernels if name in code.__code__.co_names and name in code.__globals__
    }
    if not stocks:
        return "its forward calls no function that has a fast path" if _is_recurrent(module) else None
    usable = {name: stock for name, stock in stocks.items() if kernels[name].fits(stock)}
    if not usable:
        return f"the signature of {', '.join(stocks)} is not the one the fast path was written for"
    if any(_is_native(stock) for stock in usable.values()) and _device(module).type == "cuda":
        return "native kernels are installed for its device"
    fast_names = {name: kernels[name].replacing(stock) for name, stock in usable.items()}
    function = _rebuild(method.__func__, fast_names)
    undo.append((module, attribute, before))
    setattr(module, attribute, MethodType(function, module))
    return tuple(usable)


def _rebuild(function: Any, names: Mapping[str, Any]) -> FunctionType:
    """The same function with ``names`` bound in its globals; decorators around it (``__wrapped__``) are rebuilt
    around the copy."""
    inner = getattr(function, "__wrapped__", None)
    closure = function.__closure__
    if inner is None:
        scope = {**function.__globals__, **names}
    else:
        scope = function.__globals__
        rebuilt = _rebuild(inner, names)
        closure = tuple(CellType(rebuilt) if cell.cell_contents is inner else cell for cell in closure or ())
    copy = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, closure)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__dict__.update(function.__dict__)
    if inner is not None:
        copy.__wrapped__ = rebuilt  # type: ignore[attr-defined]
    return copy


def _is_recurrent(module: nn.Module) -> bool:
    """A mixer with a decay or a depthwise convolution over time of its own."""
    convs = (m for m in module.children() if isinstance(m, nn.Conv1d))
    return "A_log" in dict(module.named_parameters(recurse=False)) or any(c.groups == c.in_channels > 1 for c in convs)


def _is_native(stock: Any) -> bool:
    """Whether transformers resolved this name to an installed native package instead of its own torch code."""
    plain = inspect.unwrap(stock)
    while stock is not plain:
        chosen = inspect.getclosurevars(stock).nonlocals.get("implementation", plain)
        if chosen is not plain:
            return True
        stock = stock.__wrapped__
    return False


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))
