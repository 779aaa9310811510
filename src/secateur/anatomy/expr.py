"""Arithmetic over axis sizes and config fields, written as text in family declarations.

``"g*h*p / d"``, ``"heads % groups == 0"``, ``"not tie_word_embeddings"``. Only literals, names, attribute-free
arithmetic, comparisons and and/or/not are allowed, so a declaration stays data: nothing can be called or imported.
``a if c else b`` chooses, ``bf16(x)`` rounds to bfloat16, ``field['key']`` reads a nested config value or None,
``field[1]`` an entry of a list. Works on ints and, element by element, on numpy arrays of candidate sizes.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from secateur.errors import LayoutError

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}


@lru_cache(maxsize=2048)
def _tree(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as e:
        raise LayoutError(f"expression {text!r} cannot be read: {e.msg} at character {e.offset}") from None


def names(text: str) -> tuple[str, ...]:
    """Names used in the expression, in order of appearance."""
    tree = _tree(text)
    called = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n not in called]
    return tuple(dict.fromkeys(n.id for n in sorted(found, key=lambda n: (n.lineno, n.col_offset))))


def evaluate(text: str, env: Mapping[str, Any]) -> Any:
    """Value of ``text`` with names taken from ``env``.

    Raises LayoutError for an unknown name or a construct outside the allowed arithmetic.
    """
    return _value(_tree(text), env, text)


def _value(node: ast.expr, env: Mapping[str, Any], text: str) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        if node.id not in env:
            raise LayoutError(f"expression {text!r} uses {node.id!r}, which is neither an axis nor a config field here")
        return env[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(e, env, text) for e in node.elts]
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)](_value(node.left, env, text), _value(node.right, env, text))
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, env, text)
        return -value if isinstance(node.op, ast.USub) else np.logical_not(value) if _is_array(value) else not value
    if isinstance(node, ast.BoolOp):
        return _bool([_value(v, env, text) for v in node.values], isinstance(node.op, ast.And))
    if isinstance(node, ast.Compare):
        return _compare(node, env, text)
    if isinstance(node, ast.IfExp):
        return _value(node.body if _value(node.test, env, text) else node.orelse, env, text)
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        container = _value(node.value, env, text)
        if isinstance(container, list | tuple) and isinstance(node.slice.value, int):
            return container[node.slice.value]
        return container.get(node.slice.value) if isinstance(container, Mapping) else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "bf16":
        return _bfloat16(_value(node.args[0], env, text))
    raise LayoutError(f"expression {text!r}: {type(node).__name__} is not allowed in a declaration")


def _bfloat16(value: float) -> float:
    bits = int(np.float32(value).view(np.uint32))
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000  # to nearest, ties to even
    return float(np.uint32(rounded).view(np.float32))


def _compare(node: ast.Compare, env: Mapping[str, Any], text: str) -> Any:
    left, results = _value(node.left, env, text), []
    for op, right_node in zip(node.ops, node.comparators, strict=True):
        right = _value(right_node, env, text)
        results.append(_COMPARE[type(op)](left, right))
        left = right
    return _bool(results, True)


def _bool(values: list[Any], conjunction: bool) -> Any:
    if any(_is_array(v) for v in values):
        fold = np.logical_and if conjunction else np.logical_or
        out = values[0]
        for v in values[1:]:
            out = fold(out, v)
        return out
    return all(values) if conjunction else any(values)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)
