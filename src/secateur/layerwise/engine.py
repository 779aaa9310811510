"""From Grams to weights: every linear of a layer solved, checked on other text, stored, and loaded again.

The engine is an observer and an edit of the one walker. After a layer's text is through, each of its linears becomes a
:class:`Problem`; what the method makes of it is rounded to the file's dtype, kept in the work folder, and loaded into
the layer by transformers' own loader, so that later layers see the outputs of the compressed one. Memory: one layer.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file

from secateur.calibration.observer import Layer
from secateur.calibration.walker import reduce_states
from secateur.errors import LayoutError
from secateur.layerwise.base import Method, Problem, Solution, Unfit
from secateur.layerwise.gram import Gram
from secateur.layerwise.heap import give_back
from secateur.layerwise.observe import Grams, Key
from secateur.layerwise.places import Place
from secateur.model import Model

STARVED = 0.25
"""An expert that got fewer tokens than this share of its inputs is solved on what all experts of the layer got."""


class Storage(Protocol):
    """How solved linears are stored. ``tensors``: what takes the place of a linear's weight, by on-disk name, from the
    solutions of its matrices (one, or as many as are stacked; None where one was left) and the dense weight in the
    file's dtype. ``config``: the result's config.json from the parent's. ``finish``: told the folder when all is
    written to it, before it is published."""

    def tensors(
        self, place: Place, solutions: Sequence[Solution | None], dense: torch.Tensor
    ) -> Mapping[str, torch.Tensor]: ...

    def config(self, raw: Mapping[str, Any]) -> dict[str, Any]: ...

    def finish(self, model: Model, folder: Path) -> None: ...


class Dense:
    """The weight itself under its own name: masked, dequantised or multiplied out, in the dtype of the file."""

    def tensors(
        self, place: Place, solutions: Sequence[Solution | None], dense: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        return {place.name: dense}

    def config(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        return dict(raw)

    def finish(self, model: Model, folder: Path) -> None:
        """Nothing is left to do."""


@dataclass
class Line:
    """What became of one matrix. ``predicted`` and ``measured``: relative squared error of its outputs, from the Gram
    and on the batch that judges, for the weight as it is stored; None where there is no text to say."""

    tensor: str
    matrix: int | None
    action: str
    why: str = ""
    predicted: float | None = None
    measured: float | None = None
    tokens: int = 0
    gram: str = ""
    nbytes: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Engine:
    """``changed``: tensors that the walk loads instead of those on disk; a layer's are dropped when it is done.
    ``choose(place)``: method and settings for a place, or why it is left (exclusions, mixed settings)."""

    model: Model
    work: Path
    grams: Grams
    choose: Callable[[Place], tuple[Method, Any] | str]
    storage: Storage = field(default_factory=Dense)
    changed: dict[str, torch.Tensor] = field(default_factory=dict)
    _early: Solved | None = None

    def edit(self, layer: Layer) -> bool:
        """Solve, store and load one layer's linears; those that :meth:`in_turn` solved are only stored."""
        reduce_states([self.grams])
        early, self._early = self._early, None
        mine = self.solve(self.grams, self.grams.places, f"layer-{layer.index:05d}", early)
        self.grams.forget()
        give_back()
        if mine:
            self.changed |= mine
            layer.reload()
            for name in mine:
                del self.changed[name]
        return bool(mine)

    def in_turn(self, said: Sequence[Place]) -> None:
        """Solve the linear whose product all batches are about to compute, which then is one with the new weight."""
        place = said[0]
        if any(p.name != place.name for p in said):
            raise LayoutError(f"one batch comes to {place.name!r} when another comes elsewhere")
        if self._early is None:
            self._early = Solved(Pools(self.grams, self.grams.places))
        weight = self._settle(place, self.grams, self._early)
        if weight is not None:
            parameter: Any = place.module
            parameter._parameters[place.attribute].data.copy_(weight)

    def solve(
        self, grams: Grams, places: Sequence[Place], file: str, early: Solved | None = None
    ) -> dict[str, torch.Tensor]:
        """New dense tensors of ``places`` by on-disk name, but for those solved ``early``; what storage makes of all
        and the audit go to ``file``."""
        solved, dense = early or Solved(Pools(grams, places)), {}
        for place in places:
            if place.name not in solved.lines and (weight := self._settle(place, grams, solved)) is not None:
                dense[place.name] = weight
        self._save(file, solved.stored, solved.parents, [line for p in places for line in solved.lines[p.name]])
        return dense

    def _settle(self, place: Place, grams: Grams, solved: Solved) -> torch.Tensor | None:
        """The new dense tensor of a place, None where it stays; everything else about it goes to ``solved``."""
        lines, chosen = solved.lines.setdefault(place.name, []), self.choose(place)
        if isinstance(chosen, str):
            lines.append(Line(place.name, None, "left", chosen))
            return None
        weight, solutions = self._solve(place, *chosen, grams, solved.pools, lines)
        if not any(solutions):
            return None
        parts = self.storage.tensors(place, solutions, weight)
        solved.stored |= parts
        solved.parents |= dict.fromkeys(parts, place.name)
        return weight

    def _solve(
        self, place: Place, method: Method, settings: Any, grams: Grams, pools: Pools, lines: list[Line]
    ) -> tuple[torch.Tensor, list[Solution | None]]:
        tensor = self.model.read(place.name)
        matrices = place.matrices(tensor)
        solutions: list[Solution | None] = []
        for i, old in enumerate(matrices):
            key = (place.name, i)
            line = Line(place.name, i if place.stacked else place.expert, "done", gram=grams.shares(key) or "")
            lines.append(line)
            problem = self._problem(place, i, old, tensor.dtype, method, pools, line)
            solutions.append(_attempt(problem, method, settings, line))
            solution = solutions[-1]
            if problem is not None and solution is not None:
                new = solution.weight.to(old.dtype)
                _judge(line, problem, solution, new, grams.judge(key))
                line.nbytes, line.notes = solution.nbytes, dict(solution.notes)
                old.copy_(new)
        return place.tensor(matrices), solutions

    def _problem(
        self, place: Place, i: int, weight: torch.Tensor, dtype: torch.dtype, method: Method, pools: Pools, line: Line
    ) -> Problem | None:
        gram = pools.gram(place, i)
        if gram is None:
            line.action, line.why = "left", "it never ran on this text"
            return None
        line.tokens, line.notes = gram.tokens, {}
        bias = f"{place.name.removesuffix('.weight')}.bias"
        return Problem(
            name=place.name,
            stored=weight,
            gram=gram,
            bias=self.model.read(bias).double() if bias in self.model.anatomy.tensors else None,
            kind=place.decl.kind,
            layer=place.decl.layer,
            expert=i if place.stacked else place.expert,
            dtype=dtype,
        )

    def _save(
        self, file: str, tensors: Mapping[str, torch.Tensor], parents: Mapping[str, str], lines: Sequence[Line]
    ) -> None:
        """The layer's result, whole or not at all: tensors first, the audit last. The first process writes."""
        if not is_main():
            return
        self.work.mkdir(parents=True, exist_ok=True)
        partial = self.work / f"{file}.part"
        save_file({n: t.contiguous() for n, t in tensors.items()}, partial, {"parents": json.dumps(parents)})
        partial.replace(self.work / f"{file}.safetensors")
        partial.write_text(json.dumps([asdict(line) for line in lines]), encoding="utf-8")
        partial.replace(self.work / f"{file}.json")


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def _attempt(problem: Problem | None, method: Method, settings: Any, line: Line) -> Solution | None:
    if problem is None:
        return None
    try:
        solution = method.solve(problem, settings)
    except Unfit as e:
        line.action, line.why = "left", e.message
        return None
    if problem.gram.note:
        line.why = problem.gram.note
    return solution


def _judge(line: Line, problem: Problem, solution: Solution, stored: torch.Tensor, inputs: torch.Tensor | None) -> None:
    """Errors of the weight as it is stored, relative to the energy of the outputs. What float32 rounds away is no part
    of an error worth another product with the Gram."""
    if problem.gram.tokens and (energy := problem.energy) > 0:
        wide = problem.dtype in (torch.float32, torch.float64)
        line.predicted = (solution.error if wide else problem.error(stored)) / energy
    if inputs is not None and inputs.numel():
        x = inputs.cpu().to(torch.promote_types(inputs.dtype, problem.working))
        before, after = problem.fast.to(x.dtype), stored.to(x.dtype)
        want, lost = (float((x @ w.T).square_().sum(1).sum(dtype=torch.float64)) for w in (before, before - after))
        line.measured = lost / want if want > 0 else None


@dataclass
class Solved:
    """What is known of a layer's linears so far: tensors as they are stored, whose they are, lines of the audit."""

    pools: Pools
    stored: dict[str, torch.Tensor] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    lines: dict[str, list[Line]] = field(default_factory=dict)


class Pools:
    """Grams of a layer's linears; starved experts get what all experts of the layer got together."""

    def __init__(self, grams: Grams, places: Sequence[Place]) -> None:
        self.grams, self.places = grams, places
        self._pooled: dict[str, Gram] = {}
        self._last: tuple[str, Gram] | None = None

    def gram(self, place: Place, i: int) -> Gram | None:
        """None when the linear never ran."""
        own = self._own((place.name, i)) if self.grams.needs != "nothing" else Gram.zeros(0)
        if own is None or not own.width or place.role not in ("first", "second"):
            return own
        if own.tokens >= max(1.0, STARVED * own.width):
            return own
        pooled = self._pool(place.role)
        if pooled.tokens > own.tokens:
            note = f"the expert got {own.tokens} tokens: solved on the {pooled.tokens} of all experts"
            return replace(pooled, note=note)
        if pooled.tokens:
            return own
        note = "no expert got a token: solved as if inputs were white, which is magnitude"
        white = torch.ones_like(own.diagonal)
        return Gram(white if own.matrix.ndim == 1 else torch.diag(white), 0, note)

    def _own(self, key: Key) -> Gram | None:
        """The Gram of a linear, the same object for neighbours that read one input: they share its factors."""
        name = self.grams.shares(key)
        if name is None:
            return None
        if self._last is None or self._last[0] != name:
            gram = self.grams.gram(key)
            self._last = None if gram is None else (name, gram)
        return self._last[1] if self._last else None

    def _pool(self, role: str) -> Gram:
        if role not in self._pooled:
            met: dict[str, Gram] = {}
            for key in (k for p in self.places if p.role == role for k in self.grams.keys(p.name)):
                gram = self.grams.gram(key)
                if gram is not None:
                    met.setdefault(str(self.grams.shares(key)), gram)
            first, *rest = met.values()
            self._pooled[role] = functools.reduce(Gram.joined, rest, first)
        return self._pooled[role]
