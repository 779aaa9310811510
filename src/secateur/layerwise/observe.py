"""Grams of one layer's linears while it runs: one for each input, however many linears read it.

State, in the walker's sense, until the layer is edited: ``"<i>/matrix"`` (d, d) float64 of which the upper blocks are
filled (see ``add_upper``), or (d,) where a method needs the diagonal only, and ``"<i>/tokens"``. The last batch judges:
some of its inputs are kept instead of summed, so that the error a Gram predicts can be measured on text it was not
made from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from secateur.calibration.experts import fused, run_expert
from secateur.calibration.observer import Enough, Layer
from secateur.errors import LayoutError
from secateur.layerwise.base import Needs
from secateur.layerwise.gram import Gram, add_upper, mirrored
from secateur.layerwise.places import Place, places
from secateur.layerwise.watch import Watch

_JUDGES = 256
"""Tokens of the last batch whose inputs are kept: enough for an error's second digit."""

Key = tuple[str, int]
"""A linear: name of its tensor on disk, which matrix of it."""


@dataclass
class _Call:
    """One run of the block: which inputs were met so far. Inputs are held, so that no other takes their address.
    ``products``: how many were seen; ``met``: places where other batches were waited for."""

    seen: dict[tuple[Any, ...], str] = field(default_factory=dict)
    held: list[torch.Tensor] = field(default_factory=list)
    products: int = 0
    met: set[str] = field(default_factory=set)


class Grams:
    """Observes the linears of every layer, or those that ``wanted`` names.

    ``brief``: from the second batch on a block without experts is left at its last watched product (see Enough).
    ``wait``: called with a place when a batch is about to compute its first product with it, for batches that run side
    by side (see Together): when it returns, all batches have been seen there and the weight may have changed in place.
    Not called in layers with routed experts.
    """

    def __init__(
        self,
        needs: Needs,
        batches: int,
        wanted: Callable[[Place], bool] = lambda place: True,
        *,
        brief: bool = False,
        wait: Callable[[Place], None] | None = None,
    ) -> None:
        self.state: dict[str, torch.Tensor] = {}
        self.needs, self.batches, self.wanted, self.brief = needs, batches, wanted, brief
        self.wait, self._routed = wait, False
        self._all: int | None = None
        self.places: list[Place] = []
        self.judged: dict[str, torch.Tensor] = {}
        self._of: dict[Key, str] = {}
        self._leader: dict[str, Key] = {}
        self._call, self._calls, self._counts = _Call(), 0, False

    def __repr__(self) -> str:
        return f"Grams(v1, {self.needs})"

    def attach(self, layer: Layer) -> list[Any]:
        """Watch every linear's weight; the experts' module shows theirs."""
        self.places = [p for p in places(layer) if self.wanted(p)]
        self._calls, self._all = 0, None
        if self.needs == "nothing":
            return []
        handles: list[Any] = [layer.block.register_forward_pre_hook(self._begin)]
        for place in self.places:
            if place.module is not None:
                handles.append(Watch(place.module, place.attribute, self._look(place)))
        experts, routed = fused(layer), [p for p in self.places if p.role in ("first", "second")]
        self._routed = bool(routed)
        self._counts = self.brief and not routed
        if experts is not None and routed:
            handles.append(experts.register_forward_pre_hook(lambda m, args: self._experts(m, routed, *args)))
        return handles

    def block(self, layer: Layer, before: torch.Tensor, after: torch.Tensor) -> None:
        """A batch is through: its inputs are let go."""
        if self._counts and self._all is None:
            self._all = self._call.products
        self._call = _Call()

    def _begin(self, block: nn.Module, args: tuple[Any, ...]) -> None:
        self._call, self._calls = _Call(), self._calls + 1

    def _look(self, place: Place) -> Callable[[torch.Tensor, bool], None]:
        def note(x: torch.Tensor, input_first: bool) -> None:
            if input_first != place.input_first:
                raise LayoutError(f"{place.name!r} is used the other way round than its layout was read")
            if place.role == "blocks":
                for i, each in enumerate(x):
                    self._note((place.name, i), each)
            else:
                self._note((place.name, 0), x)
            self._meet(place)
            self._call.products += 1
            if self._call.products == self._all:
                self._call = _Call()
                raise Enough

        return note

    def _meet(self, place: Place) -> None:
        """Let the other batches come here too."""
        if self.wait is None or self._routed or place.name in self._call.met:
            return
        self._call.met.add(place.name)
        mine = self._call, self._calls
        self.wait(place)
        self._call, self._calls = mine

    @torch.no_grad()
    def _experts(
        self, module: Any, routed: list[Place], hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> None:
        """hidden (tokens, width), chosen (tokens, experts per token)."""
        hidden = hidden.reshape(-1, hidden.shape[-1])
        for e in range(module.down_proj.shape[0]):
            read = hidden[torch.where(chosen == e)[0]]
            inner, _ = run_expert(module, e, read)
            for role, x in (("first", read), ("second", inner)):
                mine = [p for p in routed if p.role == role and p.expert in (None, e)]
                # named, not recognised: an expert without tokens must have the same Grams in every process
                self._of |= {(p.name, 0 if p.expert == e else e): f"{role}.{e}" for p in mine}
                if mine:
                    self._add(f"{role}.{e}", x)

    def _note(self, key: Key, x: torch.Tensor) -> None:
        """Add ``x`` (.., d) to the Gram of ``key``, unless another linear that reads it has done so."""
        layout = (x.numel(), x.shape[-1]) if x.is_contiguous() else (x.shape, x.stride())
        identity = (x.data_ptr(), x._version, *layout)
        met = self._call.seen.get(identity)
        gram = self._of.setdefault(key, met or str(len(self._leader)))
        leader = self._leader.setdefault(gram, key)
        if met == gram:
            return
        if leader != key:
            raise LayoutError(f"{key[0]!r} and {leader[0]!r} read one input in one batch and two in another")
        if self.wait is not None:  # as many calls as batches are open: each holds its last input alone
            self._call.seen, self._call.held = {}, []
        self._call.seen[identity] = gram
        self._call.held.append(x)
        self._add(gram, x.detach().reshape(-1, x.shape[-1]))

    def _add(self, gram: str, x: torch.Tensor) -> None:
        matrix, tokens = f"{gram}/matrix", f"{gram}/tokens"
        if matrix not in self.state:
            size = (x.shape[-1],) * (1 if self.needs == "diagonal" else 2)
            self.state[matrix] = torch.zeros(size, dtype=torch.float64, device=x.device)
            self.state[tokens] = torch.zeros(1, dtype=torch.float64, device=x.device)
        if self.batches > 1 and self._calls == self.batches:
            some = x[:: max(1, len(x) // _JUDGES)]
            self.judged[gram] = torch.cat([self.judged[gram], some]) if gram in self.judged else some.clone()
            return
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.needs == "diagonal":
            self.state[matrix] += wide.square().sum(0)
        else:
            add_upper(self.state[matrix], wide)
        self.state[tokens] += len(x)

    def gram(self, key: Key) -> Gram | None:
        """What was gathered for a linear, on the CPU; None when it never ran."""
        at = self._of.get(key)
        if at is None:
            return None
        matrix = self.state[f"{at}/matrix"].cpu()
        tokens = int(self.state[f"{at}/tokens"])
        return Gram(matrix if matrix.ndim == 1 else mirrored(matrix), tokens)

    def keys(self, name: str) -> list[Key]:
        """The matrices of one tensor that ran."""
        return [key for key in self._of if key[0] == name]

    def shares(self, key: Key) -> str | None:
        """The Gram's own name: linears with the same one read the same input."""
        return self._of.get(key)

    def judge(self, key: Key) -> torch.Tensor | None:
        """Inputs (tokens, d) of the last batch, None where there was only one."""
        return self.judged.get(self._of.get(key, ""))

    def forget(self) -> None:
        """The layer is done."""
        for table in (self.state, self.judged, self._of, self._leader):
            table.clear()
        self.places = []
