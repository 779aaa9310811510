"""The correctness ladder, families x axes. Each test names the rung it stands on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from secateur.anatomy import layout as lo
from secateur.anatomy.families import known
from secateur.errors import InexpressibleError
from secateur.pruning.configure import child_config
from secateur.pruning.cut import Cut
from secateur.pruning.keep import KeepSets
from secateur.pruning.shape import resolve

from .harness import Parent, cached_logits, cut_pair, distance, load, logits, write
from .rows import ROWS

CUTS = [(name, cut) for name, row in ROWS.items() for cut in (*row.cuts, *([row.combined] if row.combined else []))]
REFUSED = [(name, *r) for name, row in ROWS.items() for r in row.refused]
DROPS = [(name, d) for name, row in ROWS.items() for d in row.drops]
REFUSED_DROPS = [(name, *d) for name, row in ROWS.items() for d in row.refused_drops]


def _id(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{k}={v}" for k, v in value.items())
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


def test_every_family_has_a_row() -> None:
    """A row named "family@variant" tests another config of that family."""
    assert set(known()) == {name.partition("@")[0] for name in ROWS}


@pytest.mark.parametrize("name", ROWS)
def test_declaration_names_every_tensor_and_nothing_else(name: str, parents: dict[str, Parent]) -> None:
    """From the config alone: on-disk names and shapes equal what transformers writes; rung (c), parameter count."""
    parent = parents[name]
    declared = {n: lo.shape(d.layout, parent.anatomy.sizes) for n, d in parent.anatomy.tensors.items()}
    assert declared == {n: tuple(t.shape) for n, t in parent.tensors.items()}
    assert parent.anatomy.count() == sum(t.numel() for t in parent.tensors.values())
    assert parent.anatomy.count() == sum(math.prod(s) for s in declared.values())


@pytest.mark.parametrize("name", ROWS)
def test_permuting_an_axis_changes_nothing(name: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    """Rung (a). Axes that carry order (rotary channels, convolution taps) must fail it, or the test proves nothing."""
    parent = parents[name]
    want = logits(load(parent.folder))
    for axis in parent.anatomy.sizes:
        if axis not in parent.anatomy.live or axis in ("v", "pos") or parent.anatomy.sizes[axis] < 2:
            continue
        cut = Cut(parent.anatomy, parent.permutation(axis))
        tensors = {t.name: cut.apply(t, parent.tensors[t.decl.name]) for t in cut.targets() if t.name}
        gap = distance(want, logits(load(write(tmp_path / axis, cut.config, tensors))))
        if axis in parent.row.no_permute:
            assert gap > 1e-3, f"{axis} was expected to carry order, but permuting it moved nothing"
        else:
            assert gap < 1e-9, f"permuting {axis} moved the logits by {gap:.1e}"


@pytest.mark.parametrize(("name", "wanted"), CUTS, ids=_id)
def test_slice_equals_mask(name: str, wanted: dict[str, int], parents: dict[str, Parent], tmp_path: Path) -> None:
    """Rungs (b), (c), (d), (e) and (f)."""
    parent = parents[name]
    cut = Cut(parent.anatomy, parent.keep(wanted))
    masked, child = cut_pair(parent, cut, tmp_path)
    want, got = logits(masked), logits(child)
    inexact = parent.row.inexact.keys() & wanted.keys()
    if not inexact:
        assert distance(want, got) < parent.row.exact
    else:
        assert distance(want, got) > 1e-6, f"documented as inexact, but is exact: {inexact}"
    assert distance(logits(load(parent.folder)), got) > 1e-3, "the cut changed nothing"
    stored = sum(p.numel() for p in child.parameters()) + sum(
        b.numel() for n, b in child.named_buffers() if n.endswith("e_score_correction_bias")
    )
    assert cut.child.count() == stored == parent.anatomy.count(cut.new_sizes)
    if parent.row.cached:
        assert distance(got, cached_logits(child)) < 1e-8, "cached decoding differs from the full forward"


@pytest.mark.parametrize(("name", "wanted", "reason"), REFUSED, ids=_id)
def test_inexpressible_shapes_are_refused(
    name: str, wanted: dict[str, int], reason: str, parents: dict[str, Parent]
) -> None:
    with pytest.raises(InexpressibleError, match=reason) as refused:
        resolve(parents[name].anatomy, wanted)
    for text in refused.value.nearest:
        shape = dict(item.split("=") for item in text.split(","))
        resolve(parents[name].anatomy, {k: int(v) for k, v in shape.items()})


@pytest.mark.parametrize(("name", "layers"), DROPS, ids=_id)
def test_dropping_layers_equals_skipping_them(
    name: str, layers: tuple[int, ...], parents: dict[str, Parent], tmp_path: Path
) -> None:
    parent = parents[name]
    cut = Cut(parent.anatomy, KeepSets(parent.anatomy), layers)
    masked, child = cut_pair(parent, cut, tmp_path, eps_to_zero=False)
    got = logits(child)
    assert distance(logits(masked), got) < 1e-10
    assert distance(logits(load(parent.folder)), got) > 1e-3
    assert cut.child.count() == parent.anatomy.count(layers=frozenset(layers))
    if parent.row.cached:
        assert distance(got, cached_logits(child)) < 1e-8


@pytest.mark.parametrize(("name", "layers", "reason"), REFUSED_DROPS, ids=_id)
def test_inexpressible_drops_are_refused(
    name: str, layers: tuple[int, ...], reason: str, parents: dict[str, Parent]
) -> None:
    with pytest.raises(InexpressibleError, match=reason):
        child_config(parents[name].anatomy, parents[name].anatomy.sizes, layers)


@pytest.mark.parametrize("name", ROWS)
def test_config_is_edited_not_rewritten(name: str, parents: dict[str, Parent]) -> None:
    """Keys keep their order and spelling; a cut that changes nothing changes no byte of meaning."""
    anatomy = parents[name].anatomy
    assert json.dumps(child_config(anatomy, anatomy.sizes, range(anatomy.n_layers))) == json.dumps(anatomy.raw)
