"""A plan: the shape to cut to, chosen before any weight is touched, with what it will cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from secateur.anatomy.sizes import tied_axes
from secateur.calibration.stats import Stats
from secateur.checkpoint.files import read_small
from secateur.checkpoint.strict_json import parse_json
from secateur.errors import BudgetError, InexpressibleError, UsageError
from secateur.model import Model
from secateur.pruning.budget import Cost, cost, parse_amount
from secateur.pruning.choose import choose_layers, chosen_units
from secateur.pruning.configure import child_config
from secateur.pruning.conversions import offers
from secateur.pruning.grid import search
from secateur.pruning.marginal import Budget, search_marginal
from secateur.pruning.removed import Unit, parse_unit, split
from secateur.pruning.shape import public_axis, resolve
from secateur.pruning.silenced import shrunk

VERSION = 1
_MAX_FILE = 16 << 20  # bytes; a plan is a few kB


@dataclass(frozen=True, slots=True)
class Plan:
    """``keep``: public size of every axis that changes. ``layers``: old indices that stay, or a count still to be
    chosen by a score. ``removed``: units that go inside of layers that stay (:mod:`secateur.pruning.removed`).
    ``kept``: units of each axis that stay, as :meth:`secateur.pruning.keep.KeepSets.to_json` writes them, where the
    plan chooses them and no score does.
    ``before`` and ``after``: exact costs, of what is stored. ``importance``: the curves it was read from, as a document
    (:mod:`secateur.importance.document`), where statistics decided.
    """

    model_type: str
    config_sha256: str
    keep: Mapping[str, int]
    layers: tuple[int, ...] | int
    before: Cost
    after: Cost
    notes: tuple[str, ...] = field(default=())
    importance: Mapping[str, Any] | None = None
    removed: tuple[str, ...] = ()
    kept: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "secateur_plan": VERSION,
            "model_type": self.model_type,
            "config_sha256": self.config_sha256,
            "keep": dict(self.keep),
            "layers": list(self.layers) if isinstance(self.layers, tuple) else self.layers,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "notes": list(self.notes),
            **({"removed": list(self.removed)} if self.removed else {}),
            **({"kept": dict(self.kept)} if self.kept is not None else {}),
            **({"importance": dict(self.importance)} if self.importance is not None else {}),
        }

    def save(self, path: Path) -> None:
        """Write the plan as JSON, whole or not at all."""
        partial = path.with_name(f".{path.name}.part")
        try:
            partial.write_text(json.dumps(self.to_json(), indent=2) + "\n")
            partial.replace(path)
        except OSError as e:
            partial.unlink(missing_ok=True)
            raise UsageError(f"cannot write the plan to {path}: {e.strerror}") from e


def make_plan(
    model: Model,
    *,
    params: str | int | None = None,
    bytes_: str | int | None = None,
    keep: Mapping[str, int] | None = None,
    layers: Sequence[int] | int | None = None,
    stats: Stats | None = None,
    layer_score: str = "block-influence",
    removed: Sequence[str] = (),
) -> Plan:
    """Choose a shape.

    ``keep``: public sizes that are given. ``layers``: indices that stay, or how many. ``params`` / ``bytes_``: a budget
    (absolute, or as in "60%"); axes that are not given are then shrunk to fit it and the result never exceeds it: with
    ``stats`` by what loses least importance per parameter, else along a profile of published shapes. ``layer_score``:
    which layers go when ``layers`` is a number and there are ``stats``. ``removed``: units such as "scan 3" that go as
    well; what all layers lose alike shrinks its axis.
    Raises BudgetError saying the closest shape when nothing fits.
    """
    anatomy = model.anatomy
    layers, units = _removed(model, removed, layers)
    given = {**shrunk(units, layers, anatomy), **(keep or {})} if units else dict(keep or {})  # type: ignore[arg-type]
    sizes = _resolve_or_offer(model, given)
    if isinstance(layers, int) and stats is not None and 1 <= layers < anatomy.n_layers:
        layers = choose_layers(model, layers, layer_score, 0, stats)
    count, kept = _layers(model, layers)
    notes: tuple[str, ...] = ()
    importance = None
    before = cost(model, anatomy.sizes, range(anatomy.n_layers))
    if params is not None or bytes_ is not None:
        limit_p = parse_amount(str(params), before.parameters, "params") if params is not None else None
        limit_b = parse_amount(str(bytes_), before.bytes, "bytes") if bytes_ is not None else None
        fixed = {s for name in given for s in tied_axes(anatomy.family, public_axis(anatomy, name).symbol)}
        if stats is None:
            sizes, notes = search(model, sizes, fixed, frozenset(kept), limit_p, limit_b)
        else:
            budget = Budget(limit_p, limit_b)
            sizes, reading = search_marginal(model, stats, sizes, fixed, frozenset(kept), budget)
            importance = reading.to_json(anatomy, sizes)
    if isinstance(count, tuple):
        child_config(anatomy, sizes, kept)
    after = cost(model, sizes, kept)
    _never_over(after, params, bytes_, before)
    now, new = anatomy.public_sizes(anatomy.sizes), anatomy.public_sizes(sizes)
    changed = {n: new[n] for n in new if new[n] != now[n]}
    advice = tuple(_advice(model, sizes))
    family = anatomy.family.model_type
    names = tuple(map(str, units))
    return Plan(family, model.config_sha256, changed, count, before, after, notes + advice, importance, names)


def _removed(
    model: Model, removed: Sequence[str], layers: Sequence[int] | int | None
) -> tuple[Sequence[int] | int | None, tuple[Unit, ...]]:
    """(layers that stay, units that go inside of them)."""
    if not removed:
        return layers, ()
    if isinstance(layers, int):
        raise UsageError("removed units need the layers by name, not only their number")
    left, units = split([parse_unit(text, model.anatomy) for text in removed], model.anatomy)
    kept = tuple(i for i in left if layers is None or i in layers)
    return kept, tuple(u for u in units if u.layer in kept)


def _resolve_or_offer(model: Model, given: Mapping[str, int]) -> dict[str, int]:
    """Axis sizes; a refusal also names another standard class that can say the shape at equal logits."""
    try:
        return resolve(model.anatomy, given)
    except InexpressibleError as e:
        found = [o.conversion.target for o in offers(model.anatomy, given)]
        if not found:
            raise
        way = f"or convert first: secateur convert {model.source} --to {found[0]} --out DIR, which can say it"
        raise InexpressibleError(e.message, hint=f"{e.hint}; {way}" if e.hint else way, nearest=e.nearest) from e


def _layers(model: Model, layers: Sequence[int] | int | None) -> tuple[tuple[int, ...] | int, tuple[int, ...]]:
    """(what the plan records, the layers to count with)."""
    n = model.anatomy.n_layers
    if layers is None:
        return tuple(range(n)), tuple(range(n))
    if isinstance(layers, int):
        if not 1 <= layers <= n:
            raise UsageError(f"layers={layers}: this model has {n}; keep between 1 and {n}")
        if len(set(model.anatomy.kinds)) > 1 and layers < n:
            raise UsageError(
                f"layers={layers}: the layers of this {model.anatomy.family.model_type} model are of several kinds, so "
                "a count alone does not say what the smaller model costs",
                hint="give --stats to choose them by a score, or name them: --drop-layers 3,7-9; `secateur inspect` "
                "lists the kind of every layer",
            )
        return (layers, tuple(range(layers))) if layers < n else (tuple(range(n)), tuple(range(n)))
    wrong = [i for i in layers if not 0 <= i < n]
    if wrong or len(set(layers)) != len(layers):
        raise UsageError(f"layers {wrong or list(layers)}: expected distinct indices from 0 to {n - 1}")
    return tuple(sorted(layers)), tuple(sorted(layers))


def _never_over(after: Cost, params: str | int | None, bytes_: str | int | None, before: Cost) -> None:
    if params is not None and after.parameters > parse_amount(str(params), before.parameters, "params"):
        raise BudgetError(f"planned {after.parameters:,} parameters exceed the budget {params}")
    if bytes_ is not None and after.bytes > parse_amount(str(bytes_), before.bytes, "bytes"):
        raise BudgetError(f"planned {after.bytes:,} bytes exceed the budget {bytes_}")


def _advice(model: Model, sizes: Mapping[str, int]) -> list[str]:
    from secateur.anatomy import expr

    return [f"{a.engine}: {a.why}" for a in model.anatomy.advice if not expr.evaluate(a.expr, sizes)]


def load_plan(path: Path, model: Model) -> Plan:
    """Read a plan written by :meth:`Plan.save` and check that it was made for this model."""
    data = parse_json(read_small(path, _MAX_FILE, UsageError), path=path, error=UsageError)
    if not isinstance(data, dict) or data.get("secateur_plan") != VERSION:
        raise UsageError(f"{path} is no secateur plan of version {VERSION}; make one with `secateur plan ... --out`")
    if data.get("config_sha256") != model.config_sha256:
        raise UsageError(
            f"plan {path} was made for another config ({data.get('model_type')}), not for {model.source}",
            hint="plan again for this checkpoint",
        )
    keep, layers = data.get("keep"), data.get("layers")
    if not isinstance(keep, dict) or not all(type(v) is int for v in keep.values()):
        raise UsageError(f"plan {path}: 'keep' is {keep!r}, expected axis names with whole numbers")
    if type(layers) is not int and not (isinstance(layers, list) and all(type(i) is int for i in layers)):
        raise UsageError(f"plan {path}: 'layers' is {layers!r}, expected a list of indices or a count")
    removed = data.get("removed", [])
    if not isinstance(removed, list) or not all(isinstance(u, str) for u in removed):
        raise UsageError(f"plan {path}: 'removed' is {removed!r}, expected a list of units such as 'scan 3'")
    made, kept = make_plan(model, keep=keep, layers=layers, removed=removed), data.get("kept")
    if kept is not None:
        chosen_units(model, kept, resolve(model.anatomy, keep))
    return replace(made, kept=kept)
