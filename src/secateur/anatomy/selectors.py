"""How a config lists its layers: which kind of block stands where, and how to say it again for fewer layers.

Each selector reads kinds from the effective config (the one transformers builds, defaults filled in) and edits the
raw config.json. The reading is checked again after every edit, so a list the config cannot say is always refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, Protocol

from secateur.errors import ConfigError, InexpressibleError

Config = Mapping[str, Any]


def _step(config: Config, field: str) -> int:
    """A field by which layer numbers are divided."""
    value = config[field]
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"config field {field!r} is {value!r}, expected a number of layers >= 1")
    return value


class Selector(Protocol):
    """Reads and rewrites the per-layer kinds of one slot."""

    def read(self, config: Config, layers: int) -> list[str]:
        """Kind of every layer."""
        ...

    def edit(self, config: Config, raw: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
        """Changes to the raw config when only the layers ``keep`` stay (old indices, increasing)."""
        ...


@dataclass(frozen=True, slots=True)
class Always:
    """Every layer has the same kind."""

    kind: str

    def read(self, config: Config, layers: int) -> list[str]:
        return [self.kind] * layers

    def edit(self, config: Config, raw: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, slots=True)
class TypeList:
    """A list (or a string of letters) with one entry per layer.

    ``field``: attribute of the effective config. ``kinds``: spelling -> kind; the first spelling of a kind is the one
    written when the raw config does not hold the list. ``raw_keys``: where the raw config may hold it. ``index_keys``:
    raw keys that repeat the list as indices of the layers of one kind.
    """

    field: str
    kinds: Mapping[str, str]
    raw_keys: tuple[str, ...] = ()
    index_keys: Mapping[str, str] = dataclass_field(default_factory=dict)

    def read(self, config: Config, layers: int) -> list[str]:
        values = config[self.field]
        if values is None or len(values) != layers:
            raise ConfigError(f"config field {self.field!r} lists {len(values or ())} layers, expected {layers}")
        unknown = sorted({str(v) for v in values if v not in self.kinds})
        if unknown:
            raise ConfigError(
                f"config field {self.field!r} names unknown layer kinds {unknown}, expected {sorted(self.kinds)}"
            )
        return [self.kinds[v] for v in values]

    def edit(self, config: Config, raw: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
        layers = len(config[self.field])
        keys = self.raw_keys or (self.field,)
        edits: dict[str, Any] = {}
        for key in keys:
            value = raw.get(key)
            if isinstance(value, str) and len(value) == layers:
                edits[key] = "".join(value[i] for i in keep)
            elif isinstance(value, list) and len(value) == layers:
                edits[key] = [value[i] for i in keep]
        if not edits:
            spelling = {kind: s for s, kind in reversed(list(self.kinds.items()))}
            edits[keys[0]] = [spelling[self.kinds[config[self.field][i]]] for i in keep]
        for key, kind in self.index_keys.items():
            if raw.get(key) is not None:
                edits[key] = [new for new, old in enumerate(keep) if self.kinds[config[self.field][old]] == kind]
        return edits


@dataclass(frozen=True, slots=True)
class IndexList:
    """A list of the layer indices that have kind ``inside``; all others have kind ``outside``."""

    field: str
    inside: str
    outside: str

    def read(self, config: Config, layers: int) -> list[str]:
        listed = set(config[self.field] or ())
        return [self.inside if i in listed else self.outside for i in range(layers)]

    def edit(self, config: Config, raw: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
        listed = set(config[self.field] or ())
        return {self.field: [new for new, old in enumerate(keep) if old in listed]}


@dataclass(frozen=True, slots=True)
class Sparse:
    """Qwen's mixture-of-experts rule: every ``step``-th layer is sparse unless it is listed as dense."""

    dense_list: str = "mlp_only_layers"
    step: str = "decoder_sparse_step"
    experts: str = "num_experts"
    dense: str = "dense"
    sparse: str = "moe"

    def read(self, config: Config, layers: int) -> list[str]:
        listed, step = set(config[self.dense_list] or ()), _step(config, self.step)
        return [
            self.sparse if i not in listed and config[self.experts] > 0 and (i + 1) % step == 0 else self.dense
            for i in range(layers)
        ]

    def edit(self, config: Config, raw: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
        kinds = self.read(config, max(keep, default=-1) + 1)
        edits: dict[str, Any] = {self.dense_list: [n for n, o in enumerate(keep) if kinds[o] == self.dense]}
        if config[self.step] != 1:
            edits[self.step] = 1
        return edits if edits[self.dense_list] or self.dense_list in raw or self.step in edits else {}


@dataclass(frozen=True, slots=True)
class Period:
    """Layer ``i`` has kind ``hit`` when ``i % period == offset`` (Jamba)."""

    period: str
    offset: str
    hit: str
    miss: str
    needs: str | None = None

    def read(self, config: Config, layers: int) -> list[str]:
        if self.needs is not None and not config[self.needs] > 1:
            return [self.miss] * layers
        period = _step(config, self.period)
        return [self.hit if i % period == config[self.offset] else self.miss for i in range(layers)]

    def edit(self, config: Config, raw: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
        kinds = self.read(config, max(keep, default=-1) + 1)
        wanted = [kinds[i] == self.hit for i in keep]
        old = (int(config[self.period]), int(config[self.offset]))
        choices = [old] + [(p, o) for p in range(1, len(keep) + 2) for o in range(p)]
        for p, o in choices:
            if all((i % p == o) == hit for i, hit in enumerate(wanted)):
                return {self.period: p, self.offset: o}
        places = [i for i, hit in enumerate(wanted) if hit]
        raise InexpressibleError(
            f"the layers left would have kind {self.hit!r} at {places} of {len(keep)}, "
            f"but the config can only say 'every {self.period} layers from {self.offset}'",
            hint="drop layers so that the survivors keep one period and offset",
        )


@dataclass(frozen=True, slots=True)
class NumberedLists:
    """A :class:`TypeList` that files may hold as one list of layer numbers, counted from 1, per kind (Kimi Linear).

    ``outer``: the sub-dictionary of the raw config with these lists. ``lists``: kind -> its key there.
    """

    field: str
    kinds: Mapping[str, str]
    outer: str
    lists: Mapping[str, str]

    def read(self, config: Config, layers: int) -> list[str]:
        return TypeList(self.field, self.kinds).read(config, layers)

    def edit(self, config: Config, raw: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
        held = raw.get(self.outer) or {}
        edits: dict[str, Any] = {}
        if all(key in held for key in self.lists.values()):
            kinds = self.read(config, len(config[self.field]))
            numbers = {
                key: [new + 1 for new, old in enumerate(keep) if kinds[old] == kind] for kind, key in self.lists.items()
            }
            edits[self.outer] = {**held, **numbers}
        if not edits or raw.get(self.field) is not None:
            edits |= TypeList(self.field, self.kinds).edit(config, raw, keep)
        return edits


@dataclass(frozen=True, slots=True)
class Leading:
    """A :class:`TypeList` that files may hold as the number of leading layers of kind ``first`` (Kimi Linear)."""

    field: str
    kinds: Mapping[str, str]
    count: str
    first: str

    def read(self, config: Config, layers: int) -> list[str]:
        return TypeList(self.field, self.kinds).read(config, layers)

    def edit(self, config: Config, raw: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
        kinds = self.read(config, len(config[self.field]))
        left = [kinds[i] for i in keep]
        leading = next((n for n, kind in enumerate(left) if kind != self.first), len(left))
        edits: dict[str, Any] = {}
        if raw.get(self.field) is not None:
            edits = TypeList(self.field, self.kinds).edit(config, raw, keep)
        if not edits or self.count in raw:
            edits[self.count] = leading
        return edits


@dataclass(frozen=True, slots=True)
class Cyclic:
    """A list that is repeated until every layer has a kind (RecurrentGemma)."""

    field: str
    kinds: Mapping[str, str]

    def read(self, config: Config, layers: int) -> list[str]:
        cycle = list(config[self.field] or ())
        unknown = sorted({str(v) for v in cycle if v not in self.kinds})
        if unknown or not cycle:
            raise ConfigError(f"config field {self.field!r} is {cycle}, expected a list of {sorted(self.kinds)}")
        return [self.kinds[cycle[i % len(cycle)]] for i in range(layers)]

    def edit(self, config: Config, raw: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
        cycle = list(config[self.field])
        left = [cycle[i % len(cycle)] for i in keep]
        if left == [cycle[i % len(cycle)] for i in range(len(left))]:
            return {}
        lengths = range(1, len(left) + 1)
        n = next(n for n in lengths if all(v == left[i % n] for i, v in enumerate(left)))
        return {self.field: left[:n]}
