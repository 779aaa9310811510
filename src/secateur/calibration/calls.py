"""How a model calls its blocks: recorded once with stand-ins in their place, then repeated block by block.

What a block is given besides the hidden states (masks, positions, caches) is the modeling file's own; none of it is
made here.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from typing import Any

import torch
from torch import nn

from secateur.calibration.skeleton import Skeleton, quiet


class Calls:
    """The recorded arguments of every block, per batch; tensors equal in all batches are kept once."""

    def __init__(self) -> None:
        self.args: dict[tuple[int, int], tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self.arity: dict[type, int] = {}
        self.batch = 0

    def add(self, layer: int, batch: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = self.args.get((layer, 0))
        if first is not None:
            args = tuple(_same(a, b) for a, b in zip(args, first[0], strict=True))
            kwargs = {k: _same(v, first[1].get(k)) for k, v in kwargs.items()}
        self.args[layer, batch] = args, kwargs

    def run(self, block: nn.Module, layer: int, batch: int, hidden: torch.Tensor) -> torch.Tensor:
        """The block's output hidden states."""
        args, kwargs = self.args[layer, batch]
        out = block(hidden, *args, **kwargs)
        states: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return states


def _same(value: Any, first: Any) -> Any:
    """``first`` when both are equal, so that equal masks and positions are stored once."""
    if isinstance(value, tuple) and isinstance(first, tuple) and len(value) == len(first):
        return tuple(_same(a, b) for a, b in zip(value, first, strict=True))
    if isinstance(value, torch.Tensor) and isinstance(first, torch.Tensor) and value.shape == first.shape:
        return first if value is first or torch.equal(value, first) else value
    return value


class _Stand(nn.Module):
    """Stands in for a block: hands its call to ``look`` and returns what that gives, in the block's own form.

    ``arity``: 0 when the block returns a tensor, else the length of its tuple.
    """

    def __init__(self, original: nn.Module, look: Callable[..., torch.Tensor], arity: int) -> None:
        super().__init__()
        self.look, self.arity = look, arity
        self.__dict__["original"] = original  # not a child: its weights stay out of this module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["original"], name)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        out = self.look(hidden_states, args, kwargs)
        return (out, *[None] * (self.arity - 1)) if self.arity else out


@contextlib.contextmanager
def _stands(skeleton: Skeleton, stands: Mapping[int, nn.Module]) -> Iterator[None]:
    """Blocks replaced for a while."""
    originals = list(skeleton.blocks)
    for i, stand in stands.items():
        skeleton.blocks[i] = stand
    try:
        with quiet():
            yield
    finally:
        for i, block in enumerate(originals):
            skeleton.blocks[i] = block


def replaced(
    skeleton: Skeleton, arity: Mapping[type, int], give: Callable[[int, torch.Tensor], torch.Tensor]
) -> contextlib.AbstractContextManager[None]:
    """Every block replaced by ``give(index, hidden states)``."""
    stands = {}
    for i, block in enumerate(skeleton.blocks):
        stands[i] = _Stand(block, lambda h, args, kwargs, i=i: give(i, h), arity[type(block)])
    return _stands(skeleton, stands)


@torch.no_grad()
def record(skeleton: Skeleton, batches: Sequence[torch.Tensor], hidden: MutableSequence[torch.Tensor]) -> Calls:
    """The calls of every layer; the hidden states entering layer 0 are appended to ``hidden``, per batch."""
    calls = Calls()
    calls.arity = _arity(skeleton, batches[0][:1, :8])
    stands: dict[int, nn.Module] = {}

    def note(index: int, states: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        if index == 0:
            hidden.append(states)
        calls.add(index, calls.batch, args, kwargs)
        return states

    for i, block in enumerate(skeleton.blocks):
        stands[i] = _Stand(block, functools.partial(note, i), calls.arity[type(block)])
    with _stands(skeleton, stands):
        for calls.batch, ids in enumerate(batches):
            _body(skeleton.model)(ids.to(skeleton.device), use_cache=False)
    return calls


class _FoundError(Exception):
    """Ends a probe as soon as the block has answered."""


def _arity(skeleton: Skeleton, ids: torch.Tensor) -> dict[type, int]:
    """What each class of block returns (see :class:`_Stand`): found by running one of each class on a few tokens."""
    found: dict[type, int] = {}
    for index, block in enumerate(list(skeleton.blocks)):
        if type(block) in found:
            continue

        def look(module: nn.Module, args: Any, out: Any) -> None:
            found[type(module)] = len(out) if isinstance(out, tuple) else 0
            raise _FoundError

        before = {
            i: _Stand(b, lambda h, args, kwargs: h, found[type(b)]) for i, b in enumerate(skeleton.blocks) if i < index
        }
        skeleton.load(index)
        handle = block.register_forward_hook(look)
        try:
            with _stands(skeleton, before), contextlib.suppress(_FoundError):
                _body(skeleton.model)(ids.to(skeleton.device), use_cache=False)
        finally:
            handle.remove()
            skeleton.free(index)
    return found


def _body(model: Any) -> nn.Module:
    """The model without its head."""
    body: nn.Module = getattr(model, model.base_model_prefix)
    return body
