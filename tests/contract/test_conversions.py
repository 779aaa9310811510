"""Conversions to another standard class: logits equal to rounding, with and without cache, before and after a cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.families import known
from secateur.errors import InexpressibleError
from secateur.pruning.conversions import CONVERSIONS, Offer, convert_config, offers, tensor_sources
from secateur.pruning.cut import Cut
from secateur.pruning.shape import resolve

from .harness import Parent, build, cached_logits, cut_pair, distance, ids, load, logits, tiny_eps, write

#: row, config changes, a shape only the other class can say
CASES: dict[str, tuple[str, dict[str, Any], dict[str, int]]] = {
    "mamba2": ("mamba2", {}, {"ssm_heads": 10}),
    "mamba2 tied": ("mamba2@tied", {}, {"hidden": 40, "ssm_heads": 8}),
    "llama": ("llama", {"attention_bias": False, "mlp_bias": False}, {"hidden": 38}),
}
Built = Callable[[str], tuple[Parent, Offer, dict[str, torch.Tensor]]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """case -> (parent, offer, tensors of the converted model)."""
    cache: dict[str, tuple[Parent, Offer, dict[str, torch.Tensor]]] = {}

    def make(case: str) -> tuple[Parent, Offer, dict[str, torch.Tensor]]:
        if case not in cache:
            row, over, wanted = CASES[case]
            parent = build(row, tmp_path_factory.mktemp("parent"), **over)
            for name, t in parent.tensors.items():
                if name.endswith("dt_bias"):
                    t -= 8  # steps below time_step_min, where a lower bound would show
            (offer,) = offers(parent.anatomy, wanted)
            cache[case] = parent, offer, convert(parent, offer)
        return cache[case]

    return make


def convert(parent: Parent, offer: Offer) -> dict[str, torch.Tensor]:
    out = {}
    for name, source in tensor_sources(parent.anatomy, offer).items():
        shape = lo.shape(offer.anatomy.tensors[name].layout, offer.anatomy.sizes)
        out[name] = (
            parent.tensors[source] if isinstance(source, str) else torch.full(shape, source, dtype=torch.float64)
        )
        assert tuple(out[name].shape) == shape
    return out


@pytest.mark.parametrize("case", CASES)
def test_converted_model_has_equal_logits(case: str, built: Built, tmp_path: Path) -> None:
    parent, offer, tensors = built(case)
    want = logits(load(write(tmp_path / "source", parent.anatomy.raw, parent.tensors)))
    model = load(write(tmp_path / "target", offer.anatomy.raw, tensors))
    assert distance(want, logits(model)) < 1e-12
    assert distance(want, cached_logits(model)) < 1e-10
    assert sum(p.numel() for p in model.parameters()) == offer.anatomy.count() == parent.anatomy.count() + offer.extra


@pytest.mark.parametrize("case", CASES)
def test_generation_goes_on_from_the_cache(case: str, built: Built, tmp_path: Path) -> None:
    parent, offer, tensors = built(case)
    source = load(write(tmp_path / "source", parent.anatomy.raw, parent.tensors)).float()
    target = load(write(tmp_path / "target", offer.anatomy.raw, tensors)).float()
    kwargs = dict(max_new_tokens=6, min_new_tokens=6, do_sample=False)
    assert torch.equal(source.generate(ids()[:, :8], **kwargs), target.generate(ids()[:, :8], **kwargs))


@pytest.mark.parametrize("case", CASES)
def test_cut_of_the_converted_model_equals_the_mask(case: str, built: Built, tmp_path: Path) -> None:
    """The shape the source cannot say: cut after conversion, against the converted model masked."""
    parent, offer, tensors = built(case)
    wanted = CASES[case][2]
    with pytest.raises(InexpressibleError):
        resolve(parent.anatomy, wanted)
    target = Parent(offer.conversion.target, tmp_path, offer.anatomy, tensors)
    cut = Cut(target.anatomy, target.keep(wanted))
    masked, child = cut_pair(target, cut, tmp_path)
    assert distance(logits(masked), logits(child)) < 1e-10
    assert distance(logits(child), cached_logits(child)) < 1e-10
    plain = tiny_eps(offer.anatomy.raw, [str(offer.anatomy.family.eps_field)])
    assert distance(logits(load(write(tmp_path / "whole", plain, tensors))), logits(child)) > 1e-3


def test_steps_below_the_default_bound_are_what_the_config_must_keep(built: Built, tmp_path: Path) -> None:
    """With nemotron_h's default lower bound the converted model would differ."""
    parent, offer, tensors = built("mamba2")
    want = logits(load(write(tmp_path / "source", parent.anatomy.raw, parent.tensors)))
    bounded = {**offer.anatomy.raw, "time_step_min": 0.001}
    assert distance(want, logits(load(write(tmp_path / "bounded", bounded, tensors)))) > 1e-6


def test_nemotron_h_without_attention_cannot_decode(built: Built, tmp_path: Path) -> None:
    """The reason for the added layer. When this fails, transformers has mended it and the layer can go."""
    parent, offer, tensors = built("mamba2")
    last = offer.anatomy.n_layers - 1
    raw = {**offer.anatomy.raw, "num_hidden_layers": last, "hybrid_override_pattern": "M" * last}
    bare = load(write(tmp_path, raw, {n: t for n, t in tensors.items() if f".layers.{last}." not in n}))
    want = logits(load(write(tmp_path / "source", parent.anatomy.raw, parent.tensors)))
    assert distance(want, logits(bare)) < 1e-12
    with pytest.raises(ValueError, match="can only be called on Attention layers"):
        cached_logits(bare)


def test_what_the_conversion_costs() -> None:
    """One head of 8 channels, four matrices and a norm; a tied head is written out."""
    base = dict(
        model_type="mamba2", vocab_size=97, hidden_size=48, num_hidden_layers=3, num_heads=12, head_dim=8, n_groups=2,
        state_size=14,
    )  # fmt: skip
    for tied in (False, True):
        (offer,) = offers(Anatomy({**base, "tie_word_embeddings": tied}), {"ssm_heads": 10})
        assert offer.extra == 4 * 8 * 48 + 48 + tied * 97 * 48


def test_no_offer_where_none_is_needed_or_possible() -> None:
    base = dict(model_type="mamba2", hidden_size=48, num_heads=12, head_dim=8, n_groups=2)
    assert offers(Anatomy(base), {"ssm_heads": 6}) == []
    assert offers(Anatomy(base), {"ssm_heads": 7}) == []
    limited = Anatomy({**base, "time_step_limit": [0.0, 0.1]})
    assert offers(limited, {"ssm_heads": 10}) == []
    with pytest.raises(InexpressibleError, match="upper limit"):
        convert_config(limited, CONVERSIONS[0])
    bamba = dict(model_type="bamba", hidden_size=48, mamba_n_heads=12, mamba_d_head=8, num_attention_heads=6)
    assert offers(Anatomy({**bamba, "num_key_value_heads": 3}), {"ssm_heads": 8}) == []


def test_table_names_known_families_once() -> None:
    pairs = [(c.source, c.target) for c in CONVERSIONS]
    assert len(set(pairs)) == len(pairs)
    assert {name for pair in pairs for name in pair} <= set(known())
    assert {c.source for c in CONVERSIONS} == {case[0].partition("@")[0] for case in CASES.values()}
