"""A family bound to one config: which tensors must exist, with which axes, in which layer.

Needs no weights. Everything that cuts, counts, masks, scores or plans asks this object and nothing else.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from secateur.anatomy import expr
from secateur.anatomy import layout as lo
from secateur.anatomy.axes import PUBLIC, PublicAxis
from secateur.anatomy.effective import Effective, effective_config
from secateur.anatomy.families import family_of
from secateur.anatomy.family import ENGINES, Advice, Block, Family, Fixed, Slot
from secateur.anatomy.sizes import infer
from secateur.errors import CheckpointError, ConfigError

#: Where an axis' kept units live: '' the whole model, '7' layer 7, 'shared0' shared block 0.
Scope = str
MAX_TENSORS = 2_000_000
MAX_PARAMETERS = 10**15


@dataclass(frozen=True, slots=True)
class TensorDecl:
    """One tensor of the model. ``env`` fixes the axes its name runs over (expert 3: ``{"E": 3}``)."""

    name: str
    key: str
    part: str
    layout: lo.Layout
    layer: int | None = None
    env: Mapping[str, int] = field(default_factory=dict)
    pattern: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors counted together: equal layout, in ``layers`` layers, once per entry of the axes in ``factors``.

    ``once``: a shared tensor, which is there once as long as any of the ``layers`` that use it is.
    """

    key: str
    part: str
    layout: lo.Layout
    layers: tuple[int, ...] | None
    factors: tuple[str, ...] = ()
    once: bool = False

    def count(self, sizes: Mapping[str, Any], layers: frozenset[int] | None = None) -> Any:
        """Parameters at ``sizes`` (vectorised); ``layers``: the old indices that stay (None = all)."""
        return lo.numel(self.layout, sizes) * self.copies(sizes, layers)

    def copies(self, sizes: Mapping[str, Any], layers: frozenset[int] | None = None) -> Any:
        """How many tensors these are at ``sizes`` (vectorised)."""
        places = 1 if self.layers is None else sum(layers is None or i in layers for i in self.layers)
        return math.prod((sizes[axis] for axis in self.factors), start=min(places, 1) if self.once else places)


_HOLE = re.compile(r"\{(\w+)\}")


class Anatomy:
    """The named axes of one model.

    Parameters: ``raw`` is config.json as a dict; ``root`` the on-disk prefix when it is known from the tensor index;
    ``respelled`` the keys of ``Family.spellings`` that the files spell the other way.
    """

    def __init__(
        self, raw: Mapping[str, Any], *, root: str | None = None, respelled: frozenset[str] = frozenset()
    ) -> None:
        self.raw = dict(raw)
        self.respelled = respelled
        self.family: Family = family_of(str(raw.get("model_type")))
        self.config: Effective = effective_config(raw)
        self.root = self.family.roots[0] if root is None else root
        self.sizes: dict[str, int] = infer(self.family, self.config)
        self.n_layers = self._layer_count()
        self.kinds: list[tuple[str, ...]] = self._read_kinds()
        self._check_promises()

    def _layer_count(self) -> int:
        n = self.config.get(self.family.layers_field)
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ConfigError(f"config field {self.family.layers_field!r} is {n!r}, expected a number of layers >= 1")
        if n > 100_000:
            raise ConfigError(f"config field {self.family.layers_field!r} is {n}, which no model has")
        return n

    def _check_promises(self) -> None:
        """A lone config can promise anything; what follows lists its tensors and counts in 64-bit integers."""
        for group in self.groups:
            unsized = [a for a in (*group.layout.axes, *group.factors) if a not in self.sizes]
            if unsized:
                raise ConfigError(f"config.json gives no size for axis {unsized[0]!r} of tensor {group.key!r}")
        tensors, parameters = sum(g.copies(self.sizes) for g in self.groups), self.count()
        if tensors > MAX_TENSORS or parameters > MAX_PARAMETERS:
            raise ConfigError(
                f"the config promises {parameters:.3e} parameters in {tensors:,} tensors, which no model has",
                hint="correct config.json: a size, or the number of layers or experts, is far too large",
            )

    def _read_kinds(self) -> list[tuple[str, ...]]:
        per_slot = [slot.select.read(self.config, self.n_layers) for slot in self.family.slots]
        for slot, kinds in zip(self.family.slots, per_slot, strict=True):
            unknown = set(kinds) - set(slot.kinds)
            if unknown:
                raise ConfigError(f"{self.family.model_type}: slot {slot.name!r} has no block for {sorted(unknown)}")
        return list(zip(*per_slot, strict=True))

    # ---- declared tensors -------------------------------------------------------------------------------------

    def _holds(self, layout: lo.Layout) -> bool:
        return layout.condition is None or bool(expr.evaluate(layout.condition, _Both(self.sizes, self.config)))

    @cached_property
    def block_layouts(self) -> dict[tuple[str, str], list[tuple[str, lo.Layout]]]:
        """(slot, kind) -> [(name pattern, layout)] for the tensors this config really has."""
        table: dict[tuple[str, str], list[tuple[str, lo.Layout]]] = {}
        for slot in self.family.slots:
            for kind, block in slot.kinds.items():
                if any(kind in kinds for kinds in self.kinds):
                    table[slot.name, kind] = self._present(block.tensors)
        return table

    def _present(self, tensors: Mapping[str, str]) -> list[tuple[str, lo.Layout]]:
        """(name, layout) of the tensors that exist here; the first alternative whose condition holds counts."""
        found = []
        for name, text in tensors.items():
            holding = (alt for alt in map(lo.parse, text.split(" else ")) if self._holds(alt))
            layout = next(holding, None)
            if layout is not None:
                found.append((self.family.spellings[name] if name in self.respelled else name, layout))
        return found

    def _stem(self) -> list[tuple[str, str, lo.Layout]]:
        stem = [(self.root + n, n, layout) for n, layout in self._present(self.family.stem)]
        return stem + [(n, n, layout) for n, layout in self._present(self.family.head)]

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding: the files hold no tensor of its own."""
        return not self._present(self.family.head)

    def layer_tensors(self, layer: int) -> Iterator[tuple[str, str, str, lo.Layout]]:
        """(part, kind, name pattern inside the layer, layout) of one layer."""
        for name, layout in self._present(self.family.every_layer):
            yield "norm", "", name, layout
        for slot, kind in zip(self.family.slots, self.kinds[layer], strict=True):
            for name, layout in self.block_layouts[slot.name, kind]:
                yield kind, kind, name, layout

    def layer_prefix(self, layer: int) -> str:
        """On-disk prefix of a layer's tensors."""
        return self.root + self.family.layer.replace("{L}", str(layer))

    def declared(self) -> Iterator[TensorDecl]:
        """Every tensor the checkpoint must hold, in model order."""
        for name, key, layout in self._stem():
            yield TensorDecl(name, key, "embedding" if "v" in layout.axes else "norm", layout, pattern=key)
        for layer in range(self.n_layers):
            prefix = self.layer_prefix(layer)
            for part, kind, pattern, layout in self.layer_tensors(layer):
                if self._is_shared(pattern) and self.owner(self.block_of(layer)) != layer:
                    continue
                for env in self._envs(pattern, layer):
                    name = _HOLE.sub(lambda m, env=env: str(env[m.group(1)]), pattern)  # type: ignore[misc]
                    yield TensorDecl(prefix + name, name, part, layout, layer, env, pattern, kind)

    def _envs(self, pattern: str, layer: int) -> Iterator[dict[str, int]]:
        holes = _HOLE.findall(pattern)
        ranges = [self._users_of(self.block_of(layer)) if h == "S" else range(self.sizes[h]) for h in holes]
        for values in itertools.product(*ranges):
            yield dict(zip(holes, values, strict=True))

    @cached_property
    def tensors(self) -> dict[str, TensorDecl]:
        """Declared tensors by on-disk name."""
        return {t.name: t for t in self.declared()}

    @cached_property
    def groups(self) -> list[Group]:
        """Declared tensors folded for counting; sums over groups equal sums over :meth:`declared`."""
        out = [Group(key, "embedding" if "v" in la.axes else "norm", la, None) for _, key, la in self._stem()]
        table: dict[tuple[str, str, lo.Layout, int | None], list[int]] = {}
        for layer in range(self.n_layers):
            for part, _, pattern, layout in self.layer_tensors(layer):
                once = self._is_shared(pattern) and "{S}" not in pattern
                block = self.block_of(layer) if once else None
                table.setdefault((pattern, part, layout, block), []).append(layer)
        for (pattern, part, layout, block), layers in table.items():
            factors = tuple(h for h in _HOLE.findall(pattern) if h != "S")
            out.append(Group(pattern, part, layout, tuple(layers), factors, once=block is not None))
        return out

    # ---- shared blocks ----------------------------------------------------------------------------------------

    def _is_shared(self, pattern: str) -> bool:
        return self.family.shared is not None and pattern.startswith(self.family.shared.prefix)

    @cached_property
    def shared_users(self) -> list[int]:
        """Layers that use a shared block, in order; user j uses block j mod blocks."""
        shared = self.family.shared
        return [] if shared is None else [i for i, kinds in enumerate(self.kinds) if shared.kind in kinds]

    @property
    def shared_blocks(self) -> int:
        """Number of shared weight sets (0 for families without)."""
        return 0 if self.family.shared is None else int(self.config[self.family.shared.blocks])

    def block_of(self, layer: int) -> int:
        """The shared block a layer uses."""
        return self.shared_users.index(layer) % self.shared_blocks

    def owner(self, block: int) -> int:
        """The layer under whose name a shared block is stored."""
        return self.shared_users[block]

    def _users_of(self, block: int) -> list[int]:
        return [j for j in range(len(self.shared_users)) if j % self.shared_blocks == block]

    # ---- axes -------------------------------------------------------------------------------------------------

    @cached_property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """Axis -> the axes its kept set may depend on: those that enclose it in every tensor that uses it."""
        found: dict[str, frozenset[str]] = {}
        for group in self.groups:
            named = frozenset(h for h in _HOLE.findall(group.key) if h != "S")
            for axis, enclosing in lo.occurrences(group.layout):
                all_ = enclosing | named
                found[axis] = found[axis] & all_ if axis in found else all_
            for axis in group.factors:
                found[axis] = frozenset()
        order = list(self.sizes)
        return {a: tuple(sorted(p - {a}, key=order.index)) for a, p in found.items()}

    @cached_property
    def live(self) -> frozenset[str]:
        """Axes that run through at least one tensor of this model."""
        return frozenset(self.parents)

    @cached_property
    def advice(self) -> tuple[Advice, ...]:
        """What engines want of this model's axes and of shapes cut from it."""
        about = [a for a in (*self.family.advice, *ENGINES) if set(expr.names(a.expr)) <= self.live]
        return tuple(a for a in about if a not in ENGINES or expr.evaluate(a.expr, self.sizes))

    def scope(self, axis: str, layer: int | None) -> Scope:
        """Which set of kept units governs ``axis`` in ``layer``."""
        if axis in self.family.global_axes or layer is None:
            return ""
        shared = self.family.shared
        if shared is not None and axis in shared.axes:
            return f"shared{self.block_of(layer)}"
        return str(layer)

    @cached_property
    def scopes(self) -> dict[str, tuple[Scope, ...]]:
        """Axis -> scopes in which it occurs."""
        found: dict[str, dict[Scope, None]] = {}
        for g in self.groups:
            for axis in (*g.layout.axes, *g.factors):
                for layer in g.layers or (None,):
                    found.setdefault(axis, {})[self.scope(axis, layer)] = None
        return {a: tuple(s) for a, s in found.items()}

    def public_axes(self) -> list[PublicAxis]:
        """Public axes this model has, in the order of the glossary."""
        return [a for a in PUBLIC.values() if a.symbols and set(a.symbols) <= self.live]

    def public_size(self, axis: PublicAxis) -> int:
        """Current size of a public axis."""
        return self.public_sizes(self.sizes)[axis.name]

    def public_sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Public name -> size at ``sizes``."""
        out = {}
        for axis in self.public_axes():
            product = 1
            for s in axis.symbols:
                product *= sizes[s]
            out[axis.name] = product
        return out

    def fixed(self, symbol: str) -> Fixed | None:
        """The reason ``symbol`` cannot be resized in this config, if there is one."""
        env = _Both(self.sizes, self.config)
        return next((f for f in self.family.fixed if f.axis == symbol and expr.evaluate(f.when, env)), None)

    # ---- counting ---------------------------------------------------------------------------------------------

    def count(self, sizes: Mapping[str, Any] | None = None, layers: frozenset[int] | None = None) -> Any:
        """Number of parameters (tied weights once) at ``sizes``, with only ``layers`` kept. Vectorised over arrays."""
        at = self.sizes if sizes is None else sizes
        return sum(g.count(at, layers) for g in self.groups)

    def blocks(self) -> Iterator[tuple[int, Slot, str, Block]]:
        """Every sub-block: (layer, slot, kind, declaration)."""
        for layer, kinds in enumerate(self.kinds):
            for slot, kind in zip(self.family.slots, kinds, strict=True):
                yield layer, slot, kind, slot.kinds[kind]

    def check_index(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
        """Compare a tensor index with the declaration.

        Returns the tensors that will be left behind, with reasons. Raises CheckpointError for a tensor no layout
        covers, a missing tensor, or a shape that differs from its layout.
        """
        left: dict[str, str] = {}
        for name, got in shapes.items():
            decl = self.tensors.get(name)
            if decl is None:
                left[name] = self._why_left(name)
                continue
            want = lo.shape(decl.layout, self.sizes)
            if want != got:
                raise CheckpointError(
                    f"tensor {name!r} has shape {got}, but its layout {decl.layout.text!r} gives {want} for this config"
                )
        missing = [n for n in self.tensors if n not in shapes]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise CheckpointError(
                f"the config promises tensors the files do not hold: {', '.join(missing[:3])}{more}",
                hint="the checkpoint is incomplete, or config.json belongs to another model",
            )
        return left

    def _why_left(self, name: str) -> str:
        for pattern, why in self.family.ignored.items():
            if re.fullmatch(pattern, name):
                return why
        if name in self.family.head and self.config.get("tie_word_embeddings"):
            return "duplicate of the embedding it is tied to"
        raise CheckpointError(
            f"no layout of family {self.family.model_type!r} covers tensor {name!r}",
            hint="the checkpoint may use names of another version; saving it once with the installed transformers "
            "writes the names this family declares",
        )

    def with_root(self, names: Sequence[str]) -> Anatomy:
        """The same anatomy with the on-disk prefix and spellings that ``names`` use."""
        inside = self.family.layer.split("{L}")[0]
        root = next((r for r in self.family.roots if any(n.startswith(r + inside) for n in names)), self.root)
        respelled = frozenset(key for key in self.family.spellings if not any(n.endswith(f".{key}") for n in names))
        return Anatomy(self.raw, root=root, respelled=respelled)

    def at(self, raw: Mapping[str, Any]) -> Anatomy:
        """The anatomy of another config of the same files (a child's), with the same on-disk names."""
        return Anatomy(raw, root=self.root, respelled=self.respelled)


class _Both(Mapping[str, Any]):
    """Names in conditions: config fields first (as declared), then axis sizes."""

    def __init__(self, sizes: Mapping[str, int], config: Effective) -> None:
        self.sizes, self.config = sizes, config

    def __getitem__(self, key: str) -> Any:
        return self.config[key] if key in self.config else self.sizes[key]

    def __contains__(self, key: object) -> bool:
        return key in self.config or key in self.sizes

    def __iter__(self) -> Iterator[str]:
        return iter(self.config)

    def __len__(self) -> int:
        return len(self.config)


__all__ = ["Anatomy", "Group", "Scope", "TensorDecl"]
