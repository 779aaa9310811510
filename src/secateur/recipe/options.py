"""What a step may say: read off the signature of its verb, so that an option of the command line is one of recipes."""

from __future__ import annotations

import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from typer.models import ArgumentInfo, ParameterInfo

MODELS = ("prune", "repair", "sparsify", "factorize", "quantize", "distill")
#: Option -> the verbs whose results it takes (nothing: only files and inputs). Every argument and every path is one.
TAKES: Mapping[str, tuple[str, ...]] = {
    "parent": MODELS,
    "teacher": MODELS,
    "text": (),
    "eval_text": (),
    "stats": ("calibrate",),
    "plan": ("plan", "search"),
    "sources": ("eval", "search", *MODELS),
}
#: Options a recipe decides itself: where results lie, and whether they are made again.
MANAGED = ("out", "overwrite", "journal", "work", "restart", "json")
#: Paths a verb makes itself where nothing is yet.
MADE = ("cache", "spill", "table")
#: Verb -> ending of its result; none for checkpoint folders.
RESULTS: Mapping[str, str] = {
    "calibrate": ".safetensors",
    "plan": ".json",
    "search": ".json",
    "prune": "",
    "repair": "",
    "sparsify": "",
    "factorize": "",
    "quantize": "",
    "distill": "",
    "eval": ".json",
    "report": ".html",
}


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a verb. ``key``: its name in a recipe; ``parameter``: in the verb's function.

    ``kind``: int, float, bool, str, Path, or the allowed words. ``takes``: verbs whose results may be given by name;
    None when the value is no path at all. ``model``: a hub id may be given.
    """

    key: str
    parameter: str
    kind: type | tuple[str, ...]
    many: bool
    required: bool
    default: Any
    low: float | None
    high: float | None
    takes: tuple[str, ...] | None
    model: bool

    def convert(self, text: str) -> Any:
        """The value that ``text`` means. Raises ValueError saying what is expected."""
        if isinstance(self.kind, tuple):
            if text not in self.kind:
                raise ValueError(f"one of {', '.join(self.kind)}")
            return text
        if self.kind is bool:
            if text.lower() not in ("true", "yes", "on", "false", "no", "off"):
                raise ValueError("true or false")
            return text.lower() in ("true", "yes", "on")
        if self.kind is int or self.kind is float:
            return self._number(text)
        return Path(text) if self.kind is Path else text

    def _number(self, text: str) -> float:
        whole = self.kind is int
        if not re.fullmatch(r"[+-]?\d{1,15}" if whole else r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", text, re.I):
            raise ValueError(self._range())
        value = int(text) if whole else float(text)
        below = self.low is not None and value < self.low
        above = self.high is not None and value > self.high
        if not math.isfinite(value) or below or above:
            raise ValueError(self._range())
        return value

    def _range(self) -> str:
        said = ["a whole number" if self.kind is int else "a number"]
        said += [] if self.low is None else [f"from {self.low:g}"]
        said += [] if self.high is None else [f"up to {self.high:g}"]
        return " ".join(said)


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb that can be a step."""

    name: str
    run: Callable[..., None]
    options: Mapping[str, Option]

    @property
    def keys(self) -> list[str]:
        """Keys a recipe may give."""
        return [k for k in self.options if k not in MANAGED]


@cache
def verbs() -> Mapping[str, Verb]:
    """Every verb that can be a step, by name."""
    from secateur.cli import (
        calibrate,
        distill,
        eval,
        factorize,
        plan,
        prune,
        quantize,
        repair,
        report,
        search,
        sparsify,
    )

    modules = (calibrate, plan, search, prune, repair, sparsify, factorize, quantize, distill, eval, report)
    return {m.NAME: Verb(m.NAME, m.run, options_of(m.run)) for m in modules}


def options_of(run: Callable[..., None]) -> dict[str, Option]:
    """Recipe key -> option, from a verb's signature."""
    hints = typing.get_type_hints(run, include_extras=True)
    options = (_option(p, hints[p.name]) for p in inspect.signature(run).parameters.values())
    return {o.key: o for o in options}


def _option(parameter: inspect.Parameter, hint: Any) -> Option:
    kind, *extras = typing.get_args(hint)
    info: ParameterInfo = next(e for e in extras if isinstance(e, ParameterInfo))
    # inside Annotated typer takes the first declaration for a default
    names = [d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str) and d.startswith("--")]
    key = (names[0].split("/")[0][2:] if names else parameter.name).replace("-", "_")
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(k for k in typing.get_args(kind) if k is not types.NoneType)
    many = typing.get_origin(kind) is list
    kind = typing.get_args(kind)[0] if many else kind
    argument = isinstance(info, ArgumentInfo)
    takes = TAKES.get(key, MODELS if argument else () if kind is Path else None)
    empty = parameter.default is inspect.Parameter.empty
    return Option(
        key=key,
        parameter=parameter.name,
        kind=typing.get_args(kind) if typing.get_origin(kind) is Literal else kind,
        many=many,
        required=empty,
        default=None if empty else parameter.default,
        low=info.min,
        high=info.max,
        takes=takes,
        model=bool(takes) and kind is str,
    )
