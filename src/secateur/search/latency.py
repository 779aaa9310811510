"""A table of measured block latencies, and the latency of any shape read from it (ZipLM's idea, arXiv 2302.04089).

    latency(shape) = stem(shape) + sum over the layers that stay of block(kind of the layer, shape)

Prefill and decode are kept apart. A table is measured once per machine, parent, dtype, context and batch
(:mod:`secateur.search.probe`), saved as JSON, and refused anywhere else.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.checkpoint.files import read_small
from secateur.checkpoint.strict_json import parse_json
from secateur.errors import UsageError
from secateur.model import Model
from secateur.search.resources import RESOURCES, Meter, Resource, Workload
from secateur.search.setting import Setting
from secateur.search.setting import from_json as read_setting
from secateur.search.surface import Surface

VERSION = 1
PHASES = ("prefill", "decode")
#: The kind of what lies outside the layers: embedding, final norm, head.
STEM = ""
_MAX_FILE = 64 << 20
_AGAIN = "measure a table for this machine and setting"


@dataclass(frozen=True, slots=True)
class Sample:
    """``sizes``: of the axes of the kind, in their order. Seconds: (least, median, most) of all turns."""

    sizes: tuple[int, ...]
    prefill: tuple[float, float, float]
    decode: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of layer (``"mamba"``, ``"attention+mlp"``; '' the stem): symbols that its time depends on."""

    axes: tuple[str, ...]
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Table:
    """``dials``: symbol of every axis that was varied -> all symbols tied to it. Others have the parent's size."""

    setting: Setting
    dials: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, Kind]

    def save(self, path: Path) -> None:
        """Write the table as JSON, whole or not at all."""
        partial = path.with_name(f".{path.name}.part")
        try:
            partial.write_text(json.dumps(self.to_json(), indent=1) + "\n")
            partial.replace(path)
        except OSError as e:
            partial.unlink(missing_ok=True)
            raise UsageError(f"cannot write the latency table to {path}: {e.strerror}") from e

    def to_json(self) -> dict[str, Any]:
        kinds = {
            name: {
                "axes": list(kind.axes),
                "samples": [{"sizes": list(s.sizes), **{p: list(getattr(s, p)) for p in PHASES}} for s in kind.samples],
            }
            for name, kind in self.kinds.items()
        }
        dials = {symbol: list(tied) for symbol, tied in self.dials.items()}
        return {"secateur_latency": VERSION, "setting": self.setting.to_json(), "dials": dials, "kinds": kinds}

    @staticmethod
    def load(path: Path) -> Table:
        """Read a table. Raises UsageError for a file that is none."""
        data = parse_json(read_small(path, _MAX_FILE, UsageError), path=path, error=UsageError)
        if not isinstance(data, dict) or data.get("secateur_latency") != VERSION:
            raise UsageError(f"{path} is no latency table of version {VERSION}", hint=_AGAIN)
        try:
            dials = {str(s): tuple(map(str, tied)) for s, tied in data["dials"].items()}
            kinds = {str(n): _read_kind(k) for n, k in data["kinds"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise UsageError(f"{path}: the latency table is damaged: {type(e).__name__}: {e}", hint=_AGAIN) from e
        return Table(read_setting(data.get("setting"), path), dials, kinds)

    def check(self, here: Setting) -> None:
        """Refuse a table of another machine or setting. Raises UsageError listing what differs."""
        found = here.differences(self.setting)
        if found:
            raise UsageError(f"the latency table was measured elsewhere: here {'; '.join(found)}", hint=_AGAIN)

    def resources(self, here: Setting, *, new: int = 64) -> dict[str, Resource]:
        """Budgets in seconds: ``prefill`` of a prompt, ``decode`` of a token, ``latency``: a prompt and ``new`` tokens.

        Raises UsageError when the table is not of this machine and setting.
        """
        self.check(here)
        weights = {"prefill": (1, 0), "decode": (0, 1), "latency": (1, new)}
        meanings = {"prefill": "a prompt", "decode": "one new token", "latency": f"a prompt and {new} new tokens"}
        return {n: Resource(n, "seconds", f"seconds for {meanings[n]}", self._meter_of(w)) for n, w in weights.items()}

    def _meter_of(self, weights: tuple[int, int]) -> Any:
        def meter(model: Model, workload: Workload) -> Meter:
            if (workload.context, workload.batch) != (self.setting.context, self.setting.batch):
                raise UsageError(
                    f"the latency table is for context {self.setting.context} and batch {self.setting.batch}, "
                    f"not {workload.context} and {workload.batch}",
                    hint=_AGAIN,
                )
            reader = Reader(self, model)
            return lambda sizes, layers: sum(
                w * reader.seconds(phase, sizes, layers) for phase, w in zip(PHASES, weights, strict=True) if w
            )

        return meter


def _read_kind(data: Mapping[str, Any]) -> Kind:
    axes = tuple(map(str, data["axes"]))
    samples = []
    for s in data["samples"]:
        times = [tuple(float(v) for v in s[p]) for p in PHASES]
        sizes = tuple(int(v) for v in s["sizes"])
        if len(sizes) != len(axes) or any(len(t) != 3 or not all(0 <= v < np.inf for v in t) for t in times):
            raise ValueError(f"sample {s!r}")
        samples.append(Sample(sizes, *times))  # type: ignore[arg-type]
    if not samples or len({s.sizes for s in samples}) < len(samples):
        raise ValueError("a kind without samples, or with two for one size")
    return Kind(axes, tuple(samples))


class Reader:
    """A table bound to its parent: predicts any shape. Sizes may be arrays of candidates."""

    def __init__(self, table: Table, model: Model) -> None:
        self.table, self.model, self.anatomy = table, model, model.anatomy
        self.of_layer = ["+".join(kinds) for kinds in self.anatomy.kinds]
        missing = {*self.of_layer, STEM} - set(table.kinds)
        if missing:
            raise UsageError(f"the latency table lacks the layer kinds {sorted(missing)}", hint=_AGAIN)

    @cached_property
    def surfaces(self) -> dict[tuple[str, str], Surface]:
        """(kind, phase) -> the interpolation of its samples."""
        return {(name, phase): self._surface(name, phase) for name in self.table.kinds for phase in PHASES}

    def seconds(self, phase: str, sizes: Mapping[str, Any], layers: frozenset[int]) -> Any:
        """Of a prompt ('prefill') or of one new token ('decode').

        Raises UsageError for sizes outside the measured range.
        """
        self._check_fixed(sizes)
        counts = Counter(self.of_layer[i] for i in layers)
        return sum(n * self.block(name, phase, sizes) for name, n in {**counts, STEM: 1}.items())

    def block(self, name: str, phase: str, sizes: Mapping[str, Any]) -> Any:
        """Seconds of one block of a kind; an array where its own sizes are arrays."""
        kind = self.table.kinds[name]
        own = np.broadcast_arrays(*(np.asarray(sizes[a], dtype=np.float64) for a in kind.axes)) or [np.zeros(())]
        shape, flat = own[0].shape, [o.reshape(-1) for o in own]
        for axis, values, measured in zip(
            kind.axes, flat, zip(*(s.sizes for s in kind.samples), strict=True), strict=False
        ):
            if values.min() < min(measured) or values.max() > max(measured):
                raise UsageError(
                    f"size {int(values.min())} to {int(values.max())} of axis {axis!r} is outside the latency table, "
                    f"which covers {min(measured)} to {max(measured)}",
                    hint="measure a table that covers all sizes the search may choose",
                )
        at: dict[str, Any] = {**self.anatomy.sizes}
        for axis, values in zip(kind.axes, flat, strict=False):
            at |= dict.fromkeys(self.table.dials[axis], values)
        found = self.surfaces[name, phase](self._points(kind, flat), self._causes(name, phase, at, flat[0].size))
        return float(found[0]) if not shape else found.reshape(shape)

    def _surface(self, name: str, phase: str) -> Surface:
        kind = self.table.kinds[name]
        columns = [np.array(c, dtype=np.float64) for c in zip(*(s.sizes for s in kind.samples), strict=True)]
        at: dict[str, Any] = {**self.anatomy.sizes}
        for axis, values in zip(kind.axes, columns, strict=True):
            at |= dict.fromkeys(self.table.dials[axis], values)
        n = len(kind.samples)
        seconds = np.array([getattr(s, phase)[1] for s in kind.samples])
        points = self._points(kind, columns or [np.zeros(n)])
        return Surface(points, self._causes(name, phase, at, n), seconds)

    def _points(self, kind: Kind, columns: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Sizes relative to the parent's, (n, axes)."""
        if not kind.axes:
            return np.zeros((columns[0].size, 0))
        return np.column_stack([c / self.anatomy.sizes[a] for a, c in zip(kind.axes, columns, strict=True)])

    def _causes(self, name: str, phase: str, sizes: Mapping[str, Any], n: int) -> NDArray[np.float64]:
        """Parameters and operations of one block, (n, 2)."""
        work = Workload(self.table.setting.context, self.table.setting.batch)
        none: frozenset[int] = frozenset()
        one = none if name == STEM else frozenset({self.of_layer.index(name)})
        out = []
        for resource in ("params", f"{phase}_flops"):
            meter = RESOURCES[resource].meter(self.model, work)
            value = meter(sizes, one) - (meter(sizes, none) if one else 0)
            out.append(np.broadcast_to(np.asarray(value, dtype=np.float64), (n,)))
        return np.column_stack(out)

    def _check_fixed(self, sizes: Mapping[str, Any]) -> None:
        varied = {s for tied in self.table.dials.values() for s in tied}
        for symbol, size in self.anatomy.sizes.items():
            if symbol not in varied and symbol in self.anatomy.live and np.any(np.asarray(sizes[symbol]) != size):
                raise UsageError(
                    f"axis {symbol!r} was not varied when the latency table was measured; its size is {size} there",
                    hint="measure a table that varies all axes the search may change",
                )
