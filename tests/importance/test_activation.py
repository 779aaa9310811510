"""Activation and FLAP scores against sums over the activations of a plainly loaded model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from secateur.calibration.stats import Stats
from secateur.errors import UsageError
from secateur.importance import MEASURED, Scores
from secateur.importance.base import changed_axes, keep_best
from secateur.pruning.shape import resolve
from tests.contract.harness import Parent, ids, write

from .plain import Watched, agg, measure

Measured = Callable[[str], Stats]


def score(parent: Parent, stats: Stats, axes: str, criterion: str = "activation", **sizes: int) -> Scores:
    every = {**parent.anatomy.sizes, **sizes}
    return MEASURED[criterion](parent.anatomy, stats, axes.split(), every, parent.tensors.__getitem__)


def _x_of_in_proj(parent: Parent, layer: int) -> np.ndarray:
    """agg(x) as (g, h, p): rows after the gate's, before the convolution."""
    s = parent.anatomy.sizes
    inner = s["g"] * s["h"] * s["p"]
    projected = Watched(parent).run([(layer, "mixer.in_proj")]).rows(layer, "mixer.in_proj", "out")
    return agg(projected[..., inner : 2 * inner]).reshape(s["g"], s["h"], s["p"])


def test_ssm_heads_and_channels(parents: dict[str, Parent], measured: Measured) -> None:
    parent = parents["nemotron_h"]
    x = _x_of_in_proj(parent, 3)
    got = score(parent, measured("nemotron_h"), "h p", p=5)
    channels = np.sqrt((x**2).sum((0, 1)))
    assert np.allclose(got["p", "3"], channels), "head channels are ranked once for all heads of a layer"
    best = np.argsort(-channels)[:5]
    assert np.allclose(got["h", "3"], np.sqrt((x[..., best] ** 2).sum(-1))), "heads count surviving channels only"
    alone = score(parent, measured("nemotron_h"), "h")
    assert np.allclose(alone["h", "3"], np.sqrt((x**2).sum(-1)))
    assert not np.allclose(alone["h", "3"], got["h", "3"])
    groups = score(parent, measured("nemotron_h"), "g")
    assert np.allclose(groups["g", "3"], np.sqrt((x**2).sum((1, 2))))


def test_heads_stay_in_their_group(parents: dict[str, Parent], measured: Measured) -> None:
    """Equal numbers per group, and one set of channels for all heads, whatever the activations say."""
    parent = parents["nemotron_h"]
    sizes = resolve(parent.anatomy, {"ssm_heads": 8, "ssm_head_dim": 6})
    axes = changed_axes(parent.anatomy, sizes)
    found = MEASURED["activation"](parent.anatomy, measured("nemotron_h"), axes, sizes, parent.tensors.__getitem__)
    kept = keep_best(parent.anatomy, found, sizes)
    assert kept.arrays["h", "0"].shape == (2, 4)
    channels = kept.arrays["p", "0"]
    assert (channels == channels[:1, :1]).all()


def test_attention_and_ffn(parents: dict[str, Parent], measured: Measured) -> None:
    parent = parents["nemotron_h"]
    s = parent.anatomy.sizes
    seen = Watched(parent).run([(2, "mixer.o_proj"), (1, "mixer.down_proj"), (2, "mixer.q_proj"), (2, "mixer.k_proj")])
    heads = agg(seen.rows(2, "mixer.o_proj", "in")).reshape(s["k"], s["r"], s["c"]) ** 2
    got = score(parent, measured("nemotron_h"), "k r e c f")
    assert np.allclose(got["k", "2"], np.sqrt(heads.sum((1, 2))))
    assert np.allclose(got["r", "2"], np.sqrt(heads.sum(2)))
    assert np.allclose(got["c", "2"], np.sqrt(heads.sum(1)))
    assert np.allclose(got["f", "1"], agg(seen.rows(1, "mixer.down_proj", "in")))
    queries = agg(seen.rows(2, "mixer.q_proj", "out")).reshape(s["k"], s["r"], s["e"]) ** 2
    keys = agg(seen.rows(2, "mixer.k_proj", "out")).reshape(s["k"], s["e"]) ** 2
    assert np.allclose(got["e", "2"], np.sqrt(queries.sum(1) + keys))


@pytest.mark.parametrize("name", ["nemotron_h", "gpt2", "qwen3_next"])
def test_hidden_is_scored_at_every_residual_norm(name: str, parents: dict[str, Parent], measured: Measured) -> None:
    parent = parents[name]
    norms = {"nemotron_h": ["norm"], "gpt2": ["ln_1", "ln_2"]}.get(
        name, ["input_layernorm", "post_attention_layernorm"]
    )
    wanted = [(layer, norm) for layer in range(parent.anatomy.n_layers) for norm in norms]
    seen = Watched(parent).run(wanted)
    energy = sum(agg(seen.rows(*place, "out")) ** 2 for place in wanted)
    assert np.allclose(score(parent, measured(name), "d")["d", ""], np.sqrt(energy))


def test_delta_rule_heads(parents: dict[str, Parent], measured: Measured) -> None:
    parent = parents["qwen3_next"]
    s = parent.anatomy.sizes
    layer = next(i for i, kinds in enumerate(parent.anatomy.kinds) if any("delta" in k or "linear" in k for k in kinds))
    seen = Watched(parent).run([(layer, "linear_attn.out_proj"), (layer, "linear_attn.in_proj_qkvz")])
    read = agg(seen.rows(layer, "linear_attn.out_proj", "in")).reshape(s["gk"], s["gr"], s["ev"]) ** 2
    got = score(parent, measured("qwen3_next"), "gk gr ev ek")
    assert np.allclose(got["gk", str(layer)], np.sqrt(read.sum((1, 2))))
    assert np.allclose(got["gr", str(layer)], np.sqrt(read.sum(2)))
    made = agg(seen.rows(layer, "linear_attn.in_proj_qkvz", "out")).reshape(s["gk"], -1) ** 2
    queries, keys = made[:, : s["ek"]], made[:, s["ek"] : 2 * s["ek"]]
    parents_of = parent.anatomy.parents["ek"]
    assert np.allclose(got["ek", str(layer)], np.sqrt((queries + keys) if parents_of else (queries + keys).sum(0)))


def test_mamba1_channels_and_dt_rank(parents: dict[str, Parent], measured: Measured) -> None:
    parent = parents["mamba"]
    s = parent.anatomy.sizes
    seen = Watched(parent).run([(1, "mixer.in_proj"), (1, "mixer.x_proj")])
    got = score(parent, measured("mamba"), "c1 t")
    assert np.allclose(got["c1", "1"], agg(seen.rows(1, "mixer.in_proj", "out")[..., : s["c1"]]))
    assert np.allclose(got["t", "1"], agg(seen.rows(1, "mixer.x_proj", "out")[..., : s["t"]]))


def test_matrices_stored_input_first(parents: dict[str, Parent], measured: Measured) -> None:
    parent = parents["gpt2"]
    s = parent.anatomy.sizes
    seen = Watched(parent).run([(0, "attn.c_proj"), (0, "mlp.c_proj")])
    got = score(parent, measured("gpt2"), "f k")
    assert np.allclose(got["f", "0"], agg(seen.rows(0, "mlp.c_proj", "in")))
    heads = agg(seen.rows(0, "attn.c_proj", "in")).reshape(s["k"], s["c"])
    assert np.allclose(got["k", "0"], np.sqrt((heads**2).sum(1)))


def test_a_shared_block_sums_over_its_users(parents: dict[str, Parent], measured: Measured) -> None:
    parent = parents["zamba2"]
    users = [i for i in parent.anatomy.shared_users if parent.anatomy.block_of(i) == 0]
    path = "shared_transformer.feed_forward.down_proj"
    assert len(users) > 1
    # the module is one, so it is watched once per user
    energy = sum(agg(Watched(parent).run([(i, path)]).rows(i, path, "in")) ** 2 for i in users[-1:])
    got = score(parent, measured("zamba2"), "f")["f", "shared0"] ** 2
    assert (got > energy - 1e-9).all() and not np.allclose(got, energy)


def test_flap_against_brute_force(parents: dict[str, Parent], measured: Measured) -> None:
    parent = parents["nemotron_h"]
    s = parent.anatomy.sizes
    seen = Watched(parent).run([(3, "mixer.out_proj"), (1, "mixer.down_proj")])
    got = score(parent, measured("nemotron_h"), "f h", "flap")
    x = seen.rows(1, "mixer.down_proj", "in").reshape(-1, s["f"])
    weight = parent.tensors[parent.anatomy.layer_prefix(1) + "mixer.down_proj.weight"].numpy()
    assert np.allclose(got["f", "1"], x.var(0) * (weight**2).sum(0), rtol=1e-5)
    x = seen.rows(3, "mixer.out_proj", "in").reshape(-1, s["g"] * s["h"] * s["p"])
    weight = parent.tensors[parent.anatomy.layer_prefix(3) + "mixer.out_proj.weight"].numpy()
    heads = (x.var(0) * (weight**2).sum(0)).reshape(s["g"], s["h"], s["p"]).sum(-1)
    assert np.allclose(got["h", "3"], heads, rtol=1e-5)


def test_contribution_against_brute_force(parents: dict[str, Parent], measured: Measured) -> None:
    """Energy of what each channel's share of the output is, computed share by share; heads by channels that stay."""
    parent = parents["nemotron_h"]
    s = parent.anatomy.sizes
    seen = Watched(parent).run([(3, "mixer.out_proj"), (1, "mixer.down_proj")])

    def shares(layer: int, path: str) -> np.ndarray:
        x = seen.rows(layer, path, "in")
        x = x.reshape(-1, x.shape[-1])
        weight = parent.tensors[f"{parent.anatomy.layer_prefix(layer)}{path}.weight"].double().numpy()
        return np.array([(np.outer(x[:, j], weight[:, j]) ** 2).sum() / len(x) for j in range(x.shape[1])])

    stats = measured("nemotron_h")
    assert np.allclose(
        score(parent, stats, "f", "contribution")["f", "1"] ** 2, shares(1, "mixer.down_proj"), rtol=1e-5
    )
    grid = shares(3, "mixer.out_proj").reshape(s["g"], s["h"], s["p"])
    assert np.allclose(score(parent, stats, "h", "contribution")["h", "3"] ** 2, grid.sum(-1), rtol=1e-5)
    got = score(parent, stats, "h p", "contribution", p=2)
    assert np.allclose(got["p", "3"] ** 2, np.broadcast_to(grid.sum((0, 1)), grid.shape), rtol=1e-5)
    best = np.argsort(-grid.sum((0, 1)), kind="stable")[:2]
    assert np.allclose(got["h", "3"] ** 2, grid[..., best].sum(-1), rtol=1e-5)
    for axis in ("d", "n"):
        other = score(parent, stats, axis)
        assert all(np.array_equal(v, other[k]) for k, v in score(parent, stats, axis, "contribution").items())


def test_flap_of_a_constant_channel_is_zero(parents: dict[str, Parent], tmp_path: Path) -> None:
    """Without its input weights a channel is act(bias), however large."""
    parent, tensors = parents["llama"], dict(parents["llama"].tensors)
    for name in ("gate_proj", "up_proj"):
        key = parent.anatomy.layer_prefix(0) + f"mlp.{name}"
        tensors[f"{key}.weight"], tensors[f"{key}.bias"] = tensors[f"{key}.weight"].clone(), tensors[f"{key}.bias"] + 3
        tensors[f"{key}.weight"][7] = 0
    folder = write(tmp_path / "constant", parent.anatomy.raw, tensors)
    stats = measure(folder)
    got = score(parent, stats, "f", "flap")["f", "0"]
    assert got[7] == 0 and (np.delete(got, 7) > 0).all()
    assert score(parent, stats, "f")["f", "0"][7] > 1, "activation scores see the constant"


def _near_dead(parent: Parent, folder: Path) -> tuple[Stats, dict[str, np.ndarray]]:
    """Units whose input rows are almost nothing: (statistics, axis -> dead units per enclosing unit)."""
    s, tensors = parent.anatomy.sizes, {n: t.clone() for n, t in parent.tensors.items()}
    prefix = parent.anatomy.layer_prefix
    dead = {"h": np.array([[1, 4], [0, 5]]), "f": np.array([3, 50]), "k": np.array([2])}
    inner = s["g"] * s["h"] * s["p"]
    in_proj = tensors[prefix(0) + "mixer.in_proj.weight"]
    for part in range(2):  # z and x
        rows = in_proj[part * inner : (part + 1) * inner].view(s["g"], s["h"], s["p"], -1)
        for g in range(s["g"]):
            rows[g, dead["h"][g]] *= 1e-6
    tensors[prefix(1) + "mixer.up_proj.weight"][dead["f"]] *= 1e-6
    tensors[prefix(2) + "mixer.v_proj.weight"].view(s["k"], s["c"], -1)[dead["k"]] *= 1e-6
    return measure(write(folder / "dead", parent.anatomy.raw, tensors)), dead


@pytest.mark.parametrize("criterion", ["activation", "contribution", "flap"])
def test_planted_near_dead_units_rank_last(criterion: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    parent = parents["nemotron_h"]
    stats, dead = _near_dead(parent, tmp_path)
    got = score(parent, stats, "h f k", criterion)
    for axis, layer in (("h", "0"), ("f", "1"), ("k", "2")):
        last = np.argsort(got[axis, layer], axis=-1)[..., : dead[axis].shape[-1]]
        assert (np.sort(last, axis=-1) == dead[axis]).all(), axis


def test_an_unseen_axis_is_an_error(parents: dict[str, Parent], measured: Measured) -> None:
    parent, stats = parents["nemotron_h"], measured("nemotron_h")
    blind = Stats(stats.config_sha256, {}, stats.about)
    for axis in parent.anatomy.live - {"v", "w"}:
        with pytest.raises(UsageError):
            score(parent, blind, axis)
    with pytest.raises(UsageError, match="FLAP"):
        score(parent, stats, "d", "flap")


ALL = [
    "nemotron_h",
    "falcon_mamba",
    "bamba",
    "falcon_h1",
    "granitemoehybrid",
    "jamba",
    "zamba2",
    "llama",
    "gemma3_text",
    "mixtral",
    "gpt_oss",
    "olmoe",
    "qwen3_moe",
    "qwen3_next",
    "kimi_linear",
    "olmo_hybrid",
    "lfm2",
    "recurrent_gemma",
    "opt",
    "gpt2",
]


@pytest.mark.parametrize("name", ALL)
def test_every_axis_of_every_family_can_be_scored(name: str, parents: dict[str, Parent]) -> None:
    """All axes that can be cut and lie inside the layers."""
    parent = parents[name]
    stats = measure(parent.folder, ids(8))
    for public in parent.anatomy.public_axes():
        if public.name in ("vocab", "embed_dim") or parent.anatomy.fixed(public.symbol):
            continue
        for array in score(parent, stats, public.symbol).values():
            assert np.isfinite(array).all() and (array > 0).any(), public.name
