"""The child's config.json: the parent's, edited. Never re-serialised, so that every reader still finds its own keys."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from secateur.anatomy import expr
from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.effective import Effective, effective_config
from secateur.anatomy.sizes import Env, field_rules, infer, wanted_fields
from secateur.errors import ConfigError, InexpressibleError

#: Keys that would send a loader to code or files the child does not carry.
REMOTE_KEYS = ("auto_map",)


def child_config(
    anatomy: Anatomy, sizes: Mapping[str, int], layers: Sequence[int], eps: float | None = None
) -> dict[str, Any]:
    """config.json of the model with ``sizes`` that keeps ``layers`` (old indices, increasing).

    The result is read back through transformers and compared with what was wanted: sizes, layer kinds, layer count.
    Raises InexpressibleError when the config cannot say it.
    """
    raw = copy.deepcopy(anatomy.raw)
    for key in REMOTE_KEYS:
        raw.pop(key, None)
    _drop_layers(anatomy, raw, layers)
    _resize(anatomy, raw, sizes)
    if eps is not None and anatomy.family.eps_field:
        _put(raw, anatomy, anatomy.family.eps_field, eps)
    _check(anatomy, raw, sizes, layers)
    return raw


def _put(raw: dict[str, Any], anatomy: Anatomy, name: str, value: Any) -> None:
    """Write ``value`` under every spelling of ``name`` the config already uses, or under ``name`` itself."""
    spellings = [k for k in anatomy.config.aliases(name) if k in raw]
    outer, _, inner = anatomy.family.nested.get(name, "").partition(".")
    if inner in (raw.get(outer) or {}):
        raw[outer][inner] = value
    elif not spellings:
        spellings = [name]
    for key in spellings:
        raw[key] = value


def _resize(anatomy: Anatomy, raw: dict[str, Any], sizes: Mapping[str, int]) -> None:
    family, config = anatomy.family, anatomy.config
    wanted = wanted_fields(family, sizes, config, anatomy.live)
    for name, value in wanted.items():
        if config.get(name) is not None and config[name] != value:
            _put(raw, anatomy, name, value)
    for axis, fields in family.explicit.items():
        if axis in anatomy.live and sizes[axis] != anatomy.sizes[axis]:
            for field, size in fields.items():
                _put(raw, anatomy, field, expr.evaluate(size, sizes))
    for key, text in family.stale.items():
        if raw.get(key) is not None:
            if text is None:
                del raw[key]
            else:
                _put_stale(raw, key, text, Env(anatomy.sizes, config), Env(sizes, config))
    # a field absent from the raw config may take its default from another field that has just changed
    try:
        now = effective_config(raw)
    except ConfigError:  # the value it would take is not even allowed (an odd head_dim)
        for name, value in wanted.items():
            _put(raw, anatomy, name, value)
        now = effective_config(raw)
    for name, value in wanted.items():
        got = now.get(name)
        if (got is None and not _falls_back(anatomy, name, sizes, now)) or (got is not None and got != value):
            _put(raw, anatomy, name, value)


def _put_stale(raw: dict[str, Any], key: str, text: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    value, _, condition = text.partition(" if ")
    if (not condition or expr.evaluate(condition, new)) and expr.evaluate(value, new) != expr.evaluate(value, old):
        raw[key] = int(expr.evaluate(value, new))


def _falls_back(anatomy: Anatomy, name: str, sizes: Mapping[str, int], config: Effective) -> bool:
    """Whether a field that is absent yields the wanted axis sizes through the family's fallback anyway."""
    axes = [a for rule in field_rules(anatomy.family.fields) if rule.field == name for a in rule.axes]
    known = infer(anatomy.family, config)
    return bool(axes) and all(known.get(a) == sizes[a] for a in axes)


def _drop_layers(anatomy: Anatomy, raw: dict[str, Any], layers: Sequence[int]) -> None:
    family = anatomy.family
    if list(layers) == list(range(anatomy.n_layers)):
        return
    if not layers:
        raise InexpressibleError("no layer is left", hint="keep at least one layer")
    for kind in family.needs:
        had = any(kind in kinds for kinds in anatomy.kinds)
        if had and not any(kind in anatomy.kinds[i] for i in layers):
            places = [i for i, kinds in enumerate(anatomy.kinds) if kind in kinds]
            raise InexpressibleError(
                f"no {kind} layer is left: without one, cached decoding of {family.model_type} fails in transformers",
                hint=f"keep one of the {kind} layers {places}",
            )
    _check_shared(anatomy, layers)
    for slot in family.slots:
        raw.update(slot.select.edit(anatomy.config, raw, layers))
    if family.layers_field in raw or anatomy.config.get(family.layers_field) is not None:
        _put(raw, anatomy, family.layers_field, len(layers))
    if raw.get(family.layers_field) is None:
        raw.pop(family.layers_field, None)


def _check_shared(anatomy: Anatomy, layers: Sequence[int]) -> None:
    """Users of shared blocks take them in turn, so a survivor must find itself at a place that picks its own block."""
    blocks = anatomy.shared_blocks
    survivors = [i for i in layers if i in anatomy.shared_users]
    for place, layer in enumerate(survivors):
        if anatomy.block_of(layer) != place % blocks:
            raise InexpressibleError(
                f"layer {layer} uses shared block {anatomy.block_of(layer)}, but after this drop it would be user "
                f"{place} of {len(survivors)} and get block {place % blocks}",
                hint=f"drop users of shared blocks in runs of {blocks}; they are layers {anatomy.shared_users}",
            )
    if blocks and len(survivors) < blocks:
        raise InexpressibleError(f"{len(survivors)} users are left for {blocks} shared blocks; keep at least {blocks}")


def _check(anatomy: Anatomy, raw: Mapping[str, Any], sizes: Mapping[str, int], layers: Sequence[int]) -> None:
    child = anatomy.at(raw)
    for axis in sorted(child.live & anatomy.live):
        if child.sizes[axis] != sizes[axis]:
            raise InexpressibleError(
                f"axis {axis!r} should become {sizes[axis]}, but transformers reads {child.sizes[axis]} from the "
                f"edited {anatomy.family.model_type} config: another field overrides it"
            )
    if child.n_layers != len(layers):
        raise InexpressibleError(f"{len(layers)} layers should stay, but transformers reads {child.n_layers}")
    want = [anatomy.kinds[i] for i in layers]
    if child.kinds != want:
        at = next(i for i, (a, b) in enumerate(zip(child.kinds, want, strict=True)) if a != b)
        raise InexpressibleError(
            f"layer {at} of the smaller model should be {'+'.join(want[at])}, but the config can only say "
            f"{'+'.join(child.kinds[at])}",
            hint="choose other layers to drop",
        )


def eps_of(anatomy: Anatomy) -> float:
    """The config's RMS norm epsilon (nan when the family has none)."""
    name = anatomy.family.eps_field
    return float(anatomy.config[name]) if name else math.nan
