"""What may be removed, at every granularity of Mamba-Shedder (arXiv 2501.17088), read off the anatomy.

    layer       whole decoder layers
    mamba, attention, mlp, moe ...   layers or sub-blocks of that kind (``secateur inspect`` lists a model's kinds)
    scan        the SSM of a Mamba block alone
    channels    an MLP's channels in groups, the last ones first

"mamba & mlp" is one pool. A *place* is something with levels: 0 removes nothing, level j the j-th of ``levels``; all
but channels have one. A choice gives every place a level; budgets over choices are :class:`secateur.allocation.Problem`
with whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secateur.allocation.problem import Choice, Item, Option, Problem, Resource
from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy
from secateur.errors import BudgetError, UsageError
from secateur.model import Model
from secateur.pruning.choose import can_keep
from secateur.pruning.removed import CHANNELS, FFN, LAYER, SCAN, Unit, canonical, channel_slot, scan_slot, split
from secateur.pruning.silenced import holes

Removal = frozenset[Unit]
NOTHING: Removal = frozenset()
GROUPS = 8
"""Groups that an MLP's channels are divided into."""


@dataclass(frozen=True, slots=True)
class Place:
    """``levels``: what level 1, 2, ... removes."""

    name: str
    levels: tuple[Unit, ...]


def places(anatomy: Anatomy, pool: str, *, group: int | None = None) -> tuple[Place, ...]:
    """Places of a pool such as ``"layer"`` or ``"mamba & mlp"``. ``group``: channels of a group, by default an eighth.

    Raises UsageError for names that mean nothing in this model.
    """
    found: list[Place] = []
    for name in (part.strip() for part in pool.split("&")):
        here = _channels(anatomy, group) if name == CHANNELS else [_place(u) for u in _units(anatomy, name)]
        if not here:
            kinds = sorted({k for kinds in anatomy.kinds for k in kinds})
            raise UsageError(
                f"pool {pool!r}: this {anatomy.family.model_type} model has nothing called {name!r}",
                hint=f"it has {', '.join([LAYER, *kinds, SCAN, CHANNELS])}, where the last two stand for parts of them",
            )
        found += here
    return tuple(found)


def _place(unit: Unit) -> Place:
    return Place(str(unit), (unit,))


def _units(anatomy: Anatomy, name: str) -> list[Unit]:
    layers, slots = range(anatomy.n_layers), [s.name for s in anatomy.family.slots]
    if name == LAYER:
        return [Unit(i, LAYER) for i in layers]
    if name == SCAN:
        return [Unit(i, SCAN) for i in layers if scan_slot(anatomy, i)]
    one = len(slots) == 1  # a layer of one sub-block is that sub-block
    return [
        Unit(i, LAYER if one else slot)
        for i in layers
        for slot, kind in zip(slots, anatomy.kinds[i], strict=True)
        if kind == name and (one or i not in anatomy.shared_users)
    ]


def _channels(anatomy: Anatomy, group: int | None) -> list[Place]:
    layers = [i for i in range(anatomy.n_layers) if channel_slot(anatomy, i) and i not in anatomy.shared_users]
    if not layers:
        return []
    n = anatomy.sizes[FFN]
    step = group or max(1, n // GROUPS)
    if not 1 <= step < n:
        raise UsageError(f"groups of {step} channels: the MLPs have {n}, and at least one group must stay")
    starts = range(n - step, 0, -step)
    return [Place(f"{CHANNELS} {i}", tuple(Unit(i, CHANNELS, a, n) for a in starts)) for i in layers]


def parameters(unit: Unit, anatomy: Anatomy) -> int:
    """Parameters that are dead once ``unit`` is gone (of a layer: those stored in it)."""
    if unit.part == LAYER:
        return sum(lo.numel(d.layout, anatomy.sizes) for d in anatomy.tensors.values() if d.layer == unit.layer)
    found: dict[str, int] = {}
    for decl, hole in holes(unit, anatomy):
        full = lo.shape(decl.layout, anatomy.sizes)[hole.dim]
        part = len(hole.index) * (lo.numel(decl.layout, anatomy.sizes) // full)
        found[decl.name] = found.get(decl.name, 0) + part
    return sum(found.values())


class Ground:
    """Places of a model, and the budget that a choice of levels must keep."""

    def __init__(self, model: Model, where: Sequence[Place], problem: Problem) -> None:
        self.model, self.anatomy, self.places, self.problem = model, model.anatomy, tuple(where), problem
        self._allowed: dict[Choice, bool] = {}
        self._sayable: dict[tuple[int, ...], bool] = {}

    @property
    def nothing(self) -> Choice:
        """The choice that removes nothing."""
        return (0,) * len(self.places)

    def removal(self, choice: Choice) -> Removal:
        """What a choice removes, in the fewest units."""
        return canonical((p.levels[o - 1] for p, o in zip(self.places, choice, strict=True) if o), self.anatomy)

    def allowed(self, choice: Choice) -> bool:
        """Whether the config can say the layers that are left, and nothing is removed twice (a scan and its layer)."""
        if choice not in self._allowed:
            removal = self.removal(choice)
            less = ((*choice[:i], 0, *choice[i + 1 :]) for i, o in enumerate(choice) if o)
            self._allowed[choice] = self.can_say(removal) and all(self.removal(c) != removal for c in less)
        return self._allowed[choice]

    def can_say(self, removal: Removal) -> bool:
        """Whether the config can say the layers that are left."""
        layers, _ = split(removal, self.anatomy)
        if layers not in self._sayable:
            whole = len(layers) == self.anatomy.n_layers
            self._sayable[layers] = whole or (bool(layers) and can_keep(self.model, layers))
        return self._sayable[layers]

    def raised(self, choice: Choice) -> list[Choice]:
        """The choices that remove one level more, whatever they are worth."""
        steps = [(i, o + 1) for i, (o, p) in enumerate(zip(choice, self.places, strict=True)) if o < len(p.levels)]
        return [(*choice[:i], o, *choice[i + 1 :]) for i, o in steps]

    def fits(self, choice: Choice) -> bool:
        """Whether the choice keeps the budget."""
        return self.problem.fits(choice)

    def short(self, choice: Choice) -> BudgetError:
        """The error when nothing more may go from ``choice``, which does not fit."""
        costs = zip(self.problem.cost(choice), self.problem.resources, strict=True)
        reached = ", ".join(f"{c:,} of {r.budget:,} {r.name}" for c, r in costs)
        return BudgetError(f"nothing more can be removed, and the budget is not kept: {reached}", hint=_HINT)


_HINT = "a wider pool has more to remove; dropped layers must leave what the config can say"


def counted(model: Model, where: Sequence[Place], count: int) -> Ground:
    """Exactly ``count`` levels go, whatever their size."""
    most = sum(len(p.levels) for p in where)
    if not 1 <= count <= most:
        raise BudgetError(f"{count} units cannot be removed: the pool has {most}")
    items = (Item(p.name, tuple(Option((o,), 0.0) for o in range(len(p.levels) + 1))) for p in where)
    return Ground(model, where, Problem(tuple(items), (Resource("units removed", count, exact=True),)))


def limited(model: Model, where: Sequence[Place], alive: int) -> Ground:
    """At most ``alive`` parameters stay; those of a silenced unit count as gone."""
    anatomy = model.anatomy
    items, rest = [], int(anatomy.count())
    for place in where:
        gone = [0, *(parameters(unit, anatomy) for unit in place.levels)]
        items.append(Item(place.name, tuple(Option((gone[-1] - g,), 0.0) for g in gone)))
        rest -= gone[-1]
    return Ground(model, where, Problem(tuple(items), (Resource("parameters", alive - rest),)))


__all__ = ["NOTHING", "Ground", "Place", "Removal", "counted", "limited", "parameters", "places"]
