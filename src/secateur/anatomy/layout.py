"""The layout language: one string says which named axes run through a tensor.

    in_proj.weight   (z:g h p + x:g h p + B:g n + C:g n + dt:g h) d
    norm.weight      (g [h p])
    gate.weight      1+[d]

Grammar::

    layout  := [prefix] dim (' ' dim)* [' if ' condition]     one dim per tensor dimension
    prefix  := '1+' | 'ln'                     norm weight stored as w - 1; LayerNorm (mean is subtracted)
    dim     := AXIS | INTEGER | '(' sum ')' | '[' sum ']'
    sum     := part ('+' part)*                concatenation along this tensor dimension
    part    := [LABEL ':'] dim+                blank inside brackets = product, row-major

``[..]`` marks the extent over which a norm averages. ``if`` names the config switch under which the tensor exists.

A layout is a tree of :class:`Axis`, :class:`Literal`, :class:`Product`, :class:`Sum` and :class:`Norm` nodes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from secateur.errors import LayoutError


@dataclass(frozen=True, slots=True)
class Axis:
    """A named index space, such as ``h`` (heads in a group)."""

    name: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A fixed count of entries that no axis governs."""

    n: int


@dataclass(frozen=True, slots=True)
class Product:
    """Row-major product: the last factor runs fastest."""

    factors: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Sum:
    """Concatenation along one tensor dimension; labels name the parts (``x`` of in_proj)."""

    parts: tuple[Node, ...]
    labels: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Norm:
    """The extent over which a norm's mean is taken."""

    body: Node


Node = Axis | Literal | Product | Sum | Norm


@dataclass(frozen=True, slots=True)
class Layout:
    """A parsed layout. ``dims`` has one node per tensor dimension; ``norm`` is None, '1+' or 'ln'."""

    text: str
    dims: tuple[Node, ...]
    norm: str | None = None
    condition: str | None = None
    axes: tuple[str, ...] = field(default=(), compare=False)


_TOKEN = re.compile(r"(?P<label>[A-Za-z_]\w*:)|(?P<axis>[A-Za-z_]\w*)|(?P<int>\d+)|(?P<punct>[()\[\]+])")


class _Parser:
    def __init__(self, text: str, body: str, start: int) -> None:
        self.text, self.tokens, self.pos = text, list(self._scan(text, body, start)), 0

    def _scan(self, text: str, body: str, start: int) -> Iterator[tuple[str, str, int]]:
        at = start
        while at < start + len(body):
            if text[at].isspace():
                at += 1
                continue
            m = _TOKEN.match(text, at)
            if not m:
                raise _error(text, at, f"{text[at]!r} means nothing in a layout", "an axis, a number, ( ) [ ] or +")
            yield str(m.lastgroup), m.group(), at
            at = m.end()

    def peek(self) -> tuple[str, str, int]:
        return self.tokens[self.pos] if self.pos < len(self.tokens) else ("end", "", len(self.text.rstrip()))

    def take(self) -> tuple[str, str, int]:
        token = self.peek()
        self.pos += 1
        return token

    def dim(self) -> Node:
        kind, value, at = self.take()
        if kind == "axis":
            return Axis(value)
        if kind == "int":
            if int(value) < 1:
                raise _error(self.text, at, "a size of 0", "a count of at least 1")
            return Literal(int(value))
        if kind == "punct" and value in "([":
            return self.bracket(value, at)
        found = "the end of the layout" if kind == "end" else repr(value)
        raise _error(self.text, at, found, "an axis, a number, '(' or '['")

    def bracket(self, opening: str, at: int) -> Node:
        closing = ")" if opening == "(" else "]"
        parts: list[Node] = []
        labels: list[str | None] = []
        while True:
            labels.append(self.take()[1][:-1] if self.peek()[0] == "label" else None)
            factors = [self.dim()]
            while self.peek()[0] in ("axis", "int") or self.peek()[1] in ("(", "["):
                factors.append(self.dim())
            parts.append(factors[0] if len(factors) == 1 else Product(tuple(factors)))
            kind, value, here = self.take()
            if value == "+":
                continue
            if value == closing:
                break
            if kind == "end":
                raise _error(self.text, at, f"{opening!r} is never closed", f"{closing!r} before the end")
            raise _error(self.text, here, repr(value), f"'+' or {closing!r}")
        if len(parts) == 1 and labels[0] is not None:
            body: Node = Sum(tuple(parts), tuple(labels))
        else:
            body = parts[0] if len(parts) == 1 else Sum(tuple(parts), tuple(labels))
        return Norm(body) if opening == "[" else body


def _error(text: str, at: int, found: str, expected: str) -> LayoutError:
    return LayoutError(
        f"layout {text!r}, character {at}: found {found}, expected {expected}\n    {text}\n    {' ' * at}^",
        hint="see the grammar at the top of secateur/anatomy/layout.py",
    )


@lru_cache(maxsize=4096)
def parse(text: str) -> Layout:
    """Parse a layout string.

    Raises LayoutError whose message points at the character that is wrong.
    """
    body, _, condition = text.partition(" if ")
    norm = next((p for p in ("1+", "ln") if body.lstrip().startswith(p)), None)
    start = (len(body) - len(body.lstrip()) + len(norm)) if norm else 0
    if norm == "ln" and body[start : start + 1] not in ("[", "("):
        norm, start = None, 0
    parser = _Parser(text, body[start:], start)
    dims: list[Node] = []
    while parser.peek()[0] != "end":
        if parser.peek()[0] == "label":
            raise _error(text, parser.peek()[2], "a label outside brackets", "labels only inside ( )")
        if parser.peek()[1] in (")", "]", "+"):
            raise _error(text, parser.peek()[2], repr(parser.peek()[1]), "an axis, a number, '(' or '['")
        dims.append(parser.dim())
    if not dims:
        raise _error(text, 0, "no dimension", "at least one axis")
    names = dict.fromkeys(a for d in dims for a in axes_of(d))
    return Layout(text, tuple(dims), norm, condition.strip() or None, tuple(names))


def children(node: Node) -> tuple[Node, ...]:
    """Direct sub-nodes."""
    if isinstance(node, Product):
        return node.factors
    if isinstance(node, Sum):
        return node.parts
    return (node.body,) if isinstance(node, Norm) else ()


def axes_of(node: Node) -> list[str]:
    """Axis names in ``node``, in order, with repeats."""
    return [node.name] if isinstance(node, Axis) else [a for child in children(node) for a in axes_of(child)]


def size(node: Node, sizes: Mapping[str, Any]) -> Any:
    """Entries along ``node``. ``sizes`` maps axis names to ints (or to arrays of candidate sizes, shape-compatible)."""
    if isinstance(node, Axis):
        return sizes[node.name]
    if isinstance(node, Literal):
        return node.n
    if isinstance(node, Product):
        return math.prod(size(f, sizes) for f in node.factors)
    if isinstance(node, Sum):
        return sum(size(p, sizes) for p in node.parts)
    return size(node.body, sizes)


def shape(layout: Layout, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The tensor shape that ``layout`` has at ``sizes``."""
    return tuple(size(d, sizes) for d in layout.dims)


def numel(layout: Layout, sizes: Mapping[str, Any]) -> Any:
    """Number of entries; vectorised over candidate sizes when ``sizes`` holds arrays."""
    return math.prod(size(d, sizes) for d in layout.dims)


def norm_extent(layout: Layout, sizes: Mapping[str, int]) -> int | None:
    """How many entries the norm whose weight this is averages over, or None when it is no RMS norm weight."""
    if layout.norm == "ln":
        return None
    found = [n for d in layout.dims for n in _norms(d)]
    return math.prod(size(n, sizes) for n in found) if found else None


def _norms(node: Node) -> list[Norm]:
    return [node] if isinstance(node, Norm) else [n for c in children(node) for n in _norms(c)]


def occurrences(layout: Layout) -> list[tuple[str, frozenset[str]]]:
    """Every use of an axis with the axes that enclose it there.

    An axis encloses another when it stands to its left in the same product, or is an earlier bare tensor dimension.
    """
    out: list[tuple[str, frozenset[str]]] = []

    def walk(node: Node, enclosing: frozenset[str]) -> None:
        if isinstance(node, Axis):
            out.append((node.name, enclosing))
        elif isinstance(node, Product):
            inside = enclosing
            for factor in node.factors:
                walk(factor, inside)
                core = factor.body if isinstance(factor, Norm) else factor
                inside = inside | {core.name} if isinstance(core, Axis) else inside
        else:
            for child in children(node):
                walk(child, enclosing)

    bare: frozenset[str] = frozenset()
    for dim in layout.dims:
        walk(dim, bare)
        bare = bare | {dim.name} if isinstance(dim, Axis) else bare
    return out


def labels(layout: Layout, sizes: Mapping[str, int]) -> dict[str, tuple[int, int, int]]:
    """Where each labelled part lies: label -> (tensor dimension, start, stop) for labels at the top of a dimension."""
    found: dict[str, tuple[int, int, int]] = {}
    for j, dim in enumerate(layout.dims):
        node = dim.body if isinstance(dim, Norm) else dim
        at = 0
        for part, label in zip(node.parts, node.labels, strict=True) if isinstance(node, Sum) else ():
            extent = size(part, sizes)
            if label:
                found[label] = (j, at, at + extent)
            at += extent
    return found
