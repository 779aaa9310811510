"""A model and its declaration -> every tensor of the GGUF file, with what it is made of; no weights needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from secateur.anatomy import expr
from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy, TensorDecl
from secateur.errors import InexpressibleError
from secateur.export.gguf.declaration import Gguf
from secateur.export.gguf.operations import OPERATIONS, ROWS_ONLY, Argument


@dataclass(frozen=True, slots=True)
class Made:
    """One tensor of the file. ``sources``: on-disk names, stacked when there are several; ``part``: (dimension, slice)
    of each; ``operations``: (name, argument) in order."""

    name: str
    sources: tuple[str, ...]
    part: tuple[int, slice] | None
    operations: tuple[tuple[str, Argument], ...]
    stacked: bool

    def build(self, read: Any) -> torch.Tensor:
        """The tensor from what ``read(name)`` gives."""
        each = [self._one(read(n)) for n in self.sources]
        return torch.stack(each) if self.stacked else each[0]

    @property
    def moves_rows_only(self) -> bool:
        """Whether rows come out as they were, in some order."""
        return self.part is None and all(name in ROWS_ONLY for name, _ in self.operations)

    def _one(self, t: torch.Tensor) -> torch.Tensor:
        if self.part is not None:
            dim, piece = self.part
            t = t.movedim(dim, 0)[piece].movedim(0, dim)
        for name, value in self.operations:
            t = OPERATIONS[name](t, value)
        return t.contiguous()


class Values(Mapping[str, Any]):
    """Names in expressions: axis sizes first, then config fields (None where there is no such field)."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy

    def __getitem__(self, key: str) -> Any:
        return self.anatomy.sizes[key] if key in self.anatomy.sizes else self.anatomy.config.get(key)

    def __contains__(self, key: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.anatomy.sizes)

    def __len__(self) -> int:
        return len(self.anatomy.sizes)


def planned(anatomy: Anatomy, said: Gguf) -> list[Made]:
    """Raises InexpressibleError for what llama.cpp cannot hold: a rule that fails, a tensor without a place."""
    values = Values(anatomy)
    for rule in said.rules:
        if not expr.evaluate(rule.expr, values):
            raise InexpressibleError(f"llama.cpp ({said.arch}): {rule.why}", hint=f"{rule.expr} does not hold here")
    groups: dict[tuple[int | None, str], list[TensorDecl]] = {}
    for decl in anatomy.tensors.values():
        groups.setdefault((decl.layer, decl.pattern), []).append(decl)
    return [made for (layer, pattern), decls in groups.items() for made in _places(values, said, layer, pattern, decls)]


def differences(anatomy: Anatomy, said: Gguf) -> tuple[str, ...]:
    """What llama.cpp computes otherwise than transformers does."""
    values = Values(anatomy)
    return tuple(rule.why for rule in said.alike if not expr.evaluate(rule.expr, values))


def _places(values: Values, said: Gguf, layer: int | None, pattern: str, decls: list[TensorDecl]) -> Iterator[Made]:
    if pattern not in said.tensors:
        raise InexpressibleError(
            f"llama.cpp's {said.arch} has no place for tensor {decls[0].name!r}",
            hint="its architecture lacks this part (a bias, often); nothing was written",
        )
    for place in said.tensors[pattern].split(";"):
        text, _, condition = place.strip().partition(" if ")
        if condition and not expr.evaluate(condition, values):
            continue
        name, *operations = (piece.strip() for piece in text.split("|"))
        label, _, name = name.rpartition(">")
        part = None
        if label:
            dim, start, stop = lo.labels(decls[0].layout, values.anatomy.sizes)[label]
            part = dim, slice(start, stop)
        done = tuple(_operation(values, decls[0].layout, o) for o in operations)
        sources = tuple(d.name for d in decls)
        yield Made(name.replace("{L}", str(layer)), sources, part, done, stacked="{E}" in pattern)


def _operation(values: Values, layout: lo.Layout, text: str) -> tuple[str, Argument]:
    name, _, argument = text.partition(":")
    value = expr.evaluate(argument, values) if argument else 0.0
    if isinstance(value, list | tuple):  # one for every labelled part of the layout
        parts = lo.labels(layout, values.anatomy.sizes).values()
        return name, tuple((stop - start, float(v)) for (_, start, stop), v in zip(parts, value, strict=True))
    return name, float(value)


def fields(anatomy: Anatomy, said: Gguf) -> dict[str, Any]:
    """Key (below the architecture's name) -> value; keys whose value is None are left out."""
    values = Values(anatomy)
    found: dict[str, Any] = {key: expr.evaluate(text, values) for key, text in said.fields.items()}
    for key, kinds in said.per_layer.items():
        numbers = {kind: expr.evaluate(text, values) for kind, text in kinds.items()}
        found[key] = [next((numbers[k] for k in layer if k in numbers), 0) for layer in anatomy.kinds]
    return {k: v for k, v in found.items() if v is not None}
