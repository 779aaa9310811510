"""Axis sizes from a config, and a config's fields from axis sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from secateur.anatomy import expr
from secateur.anatomy.family import Family
from secateur.errors import ConfigError, InexpressibleError, LayoutError

Sizes = Mapping[str, int]
#: The largest size of an axis. Candidates are listed in arrays this long, and no model comes near it.
MAX_SIZE = 2**24


@dataclass(frozen=True, slots=True)
class FieldRule:
    """``config[field] = product of factors``; a factor is an axis symbol or a constant."""

    field: str
    factors: tuple[str | int, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(f for f in self.factors if isinstance(f, str))

    def value(self, sizes: Mapping[str, Any]) -> Any:
        """The field's value at ``sizes`` (ints, or arrays of candidates)."""
        return math.prod(sizes[f] if isinstance(f, str) else f for f in self.factors)

    def __str__(self) -> str:
        return f"{self.field} = {' * '.join(map(str, self.factors))}"


@lru_cache(maxsize=256)
def field_rules(text: str) -> tuple[FieldRule, ...]:
    """Parse ``"hidden_size=d num_attention_heads=k*r"``."""
    rules = []
    for item in text.split():
        name, eq, product = item.partition("=")
        if not eq or not name or not product:
            raise LayoutError(f"field rule {item!r}: expected 'config_field=axis*axis'")
        rules.append(FieldRule(name, tuple(int(t) if t.isdigit() else t for t in product.split("*"))))
    return tuple(rules)


def _integer(field: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"config field {field!r} is {value!r}, expected a whole number")
    if value < 0:
        raise ConfigError(f"config field {field!r} is {value}, expected a number that is not negative")
    return value


def _axis_size(axis: str, rule: FieldRule, size: int) -> int:
    if size > MAX_SIZE:
        raise ConfigError(f"config field {rule.field!r} gives axis {axis!r} a size of {size}, which no model has")
    return size


def infer(family: Family, config: Mapping[str, Any]) -> dict[str, int]:
    """Size of every axis the config determines.

    Raises ConfigError when two fields contradict each other or a quotient is not whole.
    """
    sizes: dict[str, int] = {}
    for rule in field_rules(family.fields):
        raw = config.get(rule.field)
        if raw is None:
            continue
        value = _integer(rule.field, raw)
        unknown = [a for a in dict.fromkeys(rule.axes) if a not in sizes]
        if len(unknown) > 1:
            raise LayoutError(f"{family.model_type}: field rule '{rule}' brings in more than one new axis: {unknown}")
        if not unknown:
            if rule.value(sizes) != value:
                raise ConfigError(_conflict(rule, value, sizes))
            continue
        known = math.prod(sizes[f] if isinstance(f, str) else f for f in rule.factors if f != unknown[0])
        if known == 0 or value % known:
            raise ConfigError(f"config field {rule.field!r} is {value}, expected a multiple of {known} ({rule})")
        sizes[unknown[0]] = _axis_size(unknown[0], rule, value // known)
    for axis, text in family.fallback.items():
        if axis not in sizes and all(n in sizes or n in config for n in expr.names(text)):
            sizes[axis] = _whole(f"size of axis {axis}", expr.evaluate(text, Env(sizes, config)))
    return sizes


def _conflict(rule: FieldRule, value: int, sizes: Sizes) -> str:
    parts = ", ".join(f"{a} = {sizes[a]}" for a in rule.axes)
    return f"config field {rule.field!r} is {value}, but {rule} gives {rule.value(sizes)} with {parts}"


class Env(Mapping[str, Any]):
    """Axis sizes first, then config fields."""

    def __init__(self, sizes: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self.sizes, self.config = sizes, config

    def __getitem__(self, key: str) -> Any:
        return self.sizes[key] if key in self.sizes else self.config[key]

    def __contains__(self, key: object) -> bool:
        return key in self.sizes or key in self.config

    def __iter__(self) -> Any:
        return iter(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)


def _whole(what: str, value: Any) -> int:
    if value != int(value):
        raise ConfigError(f"{what} comes out as {value}, expected a whole number")
    return int(value)


def tied_axes(family: Family, axis: str) -> tuple[str, ...]:
    """Axes that one config field resizes with ``axis`` (``head_dim`` sizes keys and values), itself included."""
    tied = {axis}
    singles: dict[str, set[str]] = {}
    for rule in field_rules(family.fields):
        if len(rule.factors) == 1 and rule.axes:
            singles.setdefault(rule.field, set()).add(rule.axes[0])
    for axis_, text in family.fallback.items():
        if text in singles or text.isidentifier():
            singles.setdefault(f"fallback:{text}", {text}).add(axis_)
    changed = True
    while changed:
        changed = False
        for group in singles.values():
            if group & tied and not group <= tied:
                tied |= group
                changed = True
    return tuple(sorted(tied))


@dataclass(frozen=True, slots=True)
class Violation:
    """A relation a candidate shape breaks; ``axes`` are the symbols that could mend it."""

    axes: tuple[str, ...]
    why: str


def violations(family: Family, sizes: Sizes, config: Mapping[str, Any], live: frozenset[str]) -> list[Violation]:
    """Everything about ``sizes`` that the family's config cannot say. Only relations over live axes count."""
    out: list[Violation] = []
    by_field: dict[str, list[FieldRule]] = {}
    for rule in field_rules(family.fields):
        if rule.axes and set(rule.axes) <= live:
            by_field.setdefault(rule.field, []).append(rule)
    for name, rules in by_field.items():
        values = {str(r): r.value(sizes) for r in rules}
        if len(set(values.values())) > 1:
            axes = tuple(dict.fromkeys(a for r in rules for a in r.axes))
            listed = ", ".join(f"{' * '.join(map(str, r.factors))} = {r.value(sizes)}" for r in rules)
            out.append(Violation(axes, f"the one config field {name!r} must equal all of: {listed}"))
    env = Env(sizes, config)
    for name, text in _derived(family, env, live):
        value = expr.evaluate(text, env)
        if value != np.floor(value):
            out.append(
                Violation(expr.names(text), f"config field {name!r} = {text} = {value:.4g}, but it is an integer field")
            )
    for constraint in family.rules:
        axes = tuple(n for n in expr.names(constraint.expr) if n in sizes)
        if set(axes) <= live and not expr.evaluate(constraint.expr, env):
            out.append(Violation(axes, f"{constraint.why} ({constraint.expr})"))
    return out


def expressible(
    family: Family, sizes: Mapping[str, Any], config: Mapping[str, Any], live: frozenset[str]
) -> np.ndarray[Any, Any]:
    """:func:`violations` for arrays of candidates: True where the config can say the shape."""
    ok: Any = np.True_
    by_field: dict[str, list[FieldRule]] = {}
    for rule in field_rules(family.fields):
        if rule.axes and set(rule.axes) <= live:
            by_field.setdefault(rule.field, []).append(rule)
    for rules in by_field.values():
        for r in rules[1:]:
            ok = ok & (r.value(sizes) == rules[0].value(sizes))
    env = Env(sizes, config)
    for _, text in _derived(family, env, live):
        value = expr.evaluate(text, env)
        ok = ok & (value == np.floor(value))
    for constraint in family.rules:
        if {n for n in expr.names(constraint.expr) if n in sizes} <= live:
            ok = ok & expr.evaluate(constraint.expr, env)
    return np.asarray(ok)


def wanted_fields(family: Family, sizes: Sizes, config: Mapping[str, Any], live: frozenset[str]) -> dict[str, int]:
    """Value of every config field that live axes determine.

    Raises InexpressibleError when the sizes contradict each other.
    """
    broken = violations(family, sizes, config, live)
    if broken:
        raise InexpressibleError(f"a {family.model_type} config cannot express this shape: {broken[0].why}")
    out = {r.field: int(r.value(sizes)) for r in field_rules(family.fields) if r.axes and set(r.axes) <= live}
    env = Env(sizes, config)
    for name, text in _derived(family, env, live):
        out[name] = int(expr.evaluate(text, env))
    return out


def _derived(family: Family, env: Env, live: frozenset[str]) -> list[tuple[str, str]]:
    """(config field, expression) for derived fields whose axes are live and whose condition on the config holds."""
    out = []
    for name, text in family.derived.items():
        value, _, condition = text.partition(" if ")
        if condition and not expr.evaluate(condition, env.config):
            continue
        if set(expr.names(value)) - set(env.config) <= live:
            out.append((name, value))
    return out
