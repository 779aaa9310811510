"""Importance criteria on tiny models of many families: against brute force, planted units and repeatability."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy, TensorDecl
from secateur.importance import CRITERIA, keep_best
from secateur.importance.base import Slots
from secateur.pruning.select import mask_tensor

from .harness import Parent

#: axes of each row; ``u`` of the RG-LRU has its own test, since its gates use it twice
SCORED = {
    "llama": "d f k r",
    "nemotron_h": "d g h p n f fe fs E k r e",
    "mixtral": "d fe E k r",
    "qwen3_moe": "d f fe E k r",
    "gpt_oss": "d fe E k r",
    "olmoe": "fe E k",
    "gpt2": "d f k",
    "qwen3_next": "d gk gr ek ev k r fe fs E",
    "kimi_linear": "gk ek a kr en er cv fe E",
    "granitemoehybrid": "d fe fs E h p n",
    "zamba2": "f k h",
    "lfm2": "d cc f k",
}


def _units(anatomy: Anatomy, axis: str) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """(scope, enclosing units, unit) of every unit of ``axis``."""
    slots = Slots.of(anatomy, axis)
    for scope in slots.scopes:
        for *outer, unit in itertools.product(*map(range, slots.shape)):
            yield scope, tuple(outer), unit


def _only(
    anatomy: Anatomy, decl: TensorDecl, t: torch.Tensor, axis: str, outer: tuple[int, ...], unit: int
) -> torch.Tensor:
    """``t`` with everything zero that does not belong to the unit: what masking the unit away takes from ``t``."""
    if axis in decl.env:
        return t if decl.env[axis] == unit else torch.zeros_like(t)
    parents = anatomy.parents[axis]

    def lookup(name: str, env: Mapping[str, int]) -> np.ndarray:
        everything = np.arange(anatomy.sizes[name])
        if name != axis or tuple(env[p] for p in parents) != outer:
            return everything
        return everything[everything != unit]

    return t - mask_tensor(t, decl.layout, lookup, anatomy.sizes, anatomy.parents, decl.env)


def _matrices(anatomy: Anatomy, axis: str, scope: str) -> Iterator[TensorDecl]:
    for decl in anatomy.tensors.values():
        matrix = sum(n > 1 for n in lo.shape(decl.layout, anatomy.sizes)) > 1
        if matrix and axis in {*decl.layout.axes, *decl.env} and anatomy.scope(axis, decl.layer) == scope:
            yield decl


@pytest.mark.parametrize("name", SCORED)
def test_magnitude_equals_brute_force(name: str, parents: dict[str, Parent]) -> None:
    """Zero everything but one unit, sum what is left, for every unit of every axis."""
    parent = parents[name]
    axes = SCORED[name].split()
    scores = CRITERIA["magnitude"](parent.anatomy, parent.tensors.__getitem__, axes, 0)
    for axis in axes:
        for scope, outer, unit in _units(parent.anatomy, axis):
            energy = sum(
                float(_only(parent.anatomy, decl, parent.tensors[decl.name], axis, outer, unit).square().sum())
                for decl in _matrices(parent.anatomy, axis, scope)
            )
            assert scores[axis, scope][(*outer, unit)] == pytest.approx(energy**0.5, rel=1e-5), (axis, scope, unit)


def _norm(*parts: torch.Tensor) -> float:
    return float(sum(p.square().sum() for p in parts)) ** 0.5


def _scores(parent: Parent, axis: str, scope: str) -> np.ndarray:
    return CRITERIA["magnitude"](parent.anatomy, parent.tensors.__getitem__, [axis], 0)[axis, scope]


def test_magnitude_of_an_experts_channel_by_hand(parents: dict[str, Parent]) -> None:
    parent = parents["mixtral"]
    w1, w2, w3 = (parent.tensors[f"model.layers.1.block_sparse_moe.experts.3.{w}.weight"] for w in ("w1", "w2", "w3"))
    want = [_norm(w1[i], w3[i], w2[:, i]) for i in range(parent.anatomy.sizes["fe"])]
    assert _scores(parent, "fe", "1")[3] == pytest.approx(want)


def test_magnitude_of_interleaved_channels_by_hand(parents: dict[str, Parent]) -> None:
    """gpt-oss stores gate 0, up 0, gate 1, up 1, ..."""
    parent = parents["gpt_oss"]
    up = parent.tensors["model.layers.0.mlp.experts.gate_up_proj"][2]
    down = parent.tensors["model.layers.0.mlp.experts.down_proj"][2]
    bias = parent.tensors["model.layers.0.mlp.experts.gate_up_proj_bias"][2]
    want = [
        _norm(up[:, 2 * i : 2 * i + 2], down[i], bias[2 * i : 2 * i + 2]) for i in range(parent.anatomy.sizes["fe"])
    ]
    assert _scores(parent, "fe", "0")[2] == pytest.approx(want)


def test_magnitude_of_a_query_head_with_its_gate_by_hand(parents: dict[str, Parent]) -> None:
    """Qwen3-Next packs, head after head, the channels of the query and then those of its gate."""
    parent = parents["qwen3_next"]
    sizes = parent.anatomy.sizes
    q = parent.tensors["model.layers.1.self_attn.q_proj.weight"]
    o = parent.tensors["model.layers.1.self_attn.o_proj.weight"]
    width = 2 * sizes["e"]
    for head in range(sizes["k"] * sizes["r"]):
        want = _norm(q[head * width : (head + 1) * width], o[:, head * sizes["c"] : (head + 1) * sizes["c"]])
        assert _scores(parent, "r", "1")[divmod(head, sizes["r"])] == pytest.approx(want)


def test_magnitude_of_an_ssm_head_by_hand(parents: dict[str, Parent]) -> None:
    """z, x and dt rows, convolution and output columns of the head; B and C belong to its group, vectors to nobody."""
    parent = parents["nemotron_h"]
    s = parent.anatomy.sizes
    pick = {k.rpartition(".mixer.")[2]: t for k, t in parent.tensors.items() if ".layers.0." in k}
    z, x, _, _, dt = pick["in_proj.weight"].split(
        [s["g"] * s["h"] * s["p"], s["g"] * s["h"] * s["p"], s["g"] * s["n"], s["g"] * s["n"], s["g"] * s["h"]]
    )
    for head in range(s["g"] * s["h"]):
        rows = slice(head * s["p"], (head + 1) * s["p"])
        parts = (z[rows], x[rows], dt[head], pick["conv1d.weight"][rows], pick["out_proj.weight"][:, rows])
        assert _scores(parent, "h", "0")[divmod(head, s["h"])] == pytest.approx(_norm(*parts))


def test_magnitude_of_a_block_diagonal_gate_by_hand(parents: dict[str, Parent]) -> None:
    """Rows and columns of the RG-LRU's gates are the same channel; each place it occupies counts."""
    parent = parents["recurrent_gemma"]
    s = parent.anatomy.sizes
    block = {k.partition(".temporal_block.")[2]: t for k, t in parent.tensors.items() if ".layers.0.temp" in k}
    for b, u in itertools.product(range(s["b"]), range(s["u"])):
        i = b * s["u"] + u
        flat = [block[n][i] for n in ("linear_x.weight", "linear_y.weight", "conv_1d.weight")]
        gates = [block[f"rg_lru.{g}_gate_weight"][b] for g in ("input", "recurrent")]
        biases = [block[f"rg_lru.{g}_gate_bias"][b, u] for g in ("input", "recurrent")]
        want = _norm(*flat, block["linear_out.weight"][:, i], *biases, *(p for w in gates for p in (w[u], w[:, u])))
        assert _scores(parent, "u", "0")[b, u] == pytest.approx(want)


@pytest.mark.parametrize(
    ("name", "axis"),
    [("llama", "f"), ("llama", "d"), ("nemotron_h", "h"), ("nemotron_h", "n"), ("gpt_oss", "fe"), ("mixtral", "fe"),
     ("mixtral", "E"), ("qwen3_next", "r"), ("qwen3_next", "ev"), ("kimi_linear", "en"), ("zamba2", "f")],
)  # fmt: skip
def test_planted_small_units_rank_last(name: str, axis: str, parents: dict[str, Parent]) -> None:
    """One unit per scope and enclosing unit, another in each, is made a thousand times smaller."""
    parent = parents[name]
    anatomy, slots = parent.anatomy, Slots.of(parent.anatomy, axis)
    rng = np.random.default_rng(3)
    planted = {scope: rng.integers(slots.shape[-1], size=slots.shape[:-1]) for scope in slots.scopes}
    tensors = dict(parent.tensors)
    for scope, outer, unit in _units(anatomy, axis):
        if planted[scope][outer] == unit:
            for decl in _matrices(anatomy, axis, scope):
                share = _only(anatomy, decl, tensors[decl.name], axis, outer, unit)
                tensors[decl.name] = tensors[decl.name] - 0.999 * share
    scores = CRITERIA["magnitude"](anatomy, tensors.__getitem__, [axis], 0)
    for scope in slots.scopes:
        assert (scores[axis, scope].argmin(-1) == planted[scope]).all()
    keep = keep_best(anatomy, scores, {**anatomy.sizes, axis: slots.shape[-1] - 1})
    for scope in slots.scopes:
        kept = keep.arrays[axis, scope]
        assert not (kept == planted[scope][..., None]).any()


def test_random_depends_on_seed_and_scope_only(parents: dict[str, Parent]) -> None:
    parent = parents["nemotron_h"]

    def draw(axes: list[str], seed: int) -> Mapping[tuple[str, str], np.ndarray]:
        return CRITERIA["random"](parent.anatomy, parent.tensors.__getitem__, axes, seed)

    one, again, other = draw(["h", "d"], 1), draw(["h", "d"], 1), draw(["h", "d"], 2)
    assert all((one[k] == again[k]).all() for k in one)
    assert all((one[k] != other[k]).any() for k in one)
    scopes = parent.anatomy.scopes["h"]
    assert len(scopes) > 1
    assert all((one["h", a] != one["h", b]).any() for a, b in itertools.combinations(scopes, 2))
    assert (draw(["h"], 1)["h", scopes[0]] == one["h", scopes[0]]).all(), "another axis changed the draw"


def test_first_keeps_the_first(parents: dict[str, Parent]) -> None:
    parent = parents["llama"]
    scores = CRITERIA["first"](parent.anatomy, parent.tensors.__getitem__, ["f", "d"], 0)
    keep = keep_best(parent.anatomy, scores, {**parent.anatomy.sizes, "f": 5, "d": 4})
    assert all((a == np.arange(a.shape[-1])).all() for a in keep.arrays.values())
    assert {a.shape[-1] for (axis, _), a in keep.arrays.items() if axis == "f"} == {5}


def test_every_group_keeps_the_same_number_of_heads(parents: dict[str, Parent]) -> None:
    """Even when all heads of one group score higher than all of the other."""
    anatomy = parents["nemotron_h"].anatomy
    g, h = anatomy.sizes["g"], anatomy.sizes["h"]
    score = np.arange(g * h, dtype=np.float64).reshape(g, h)[:, ::-1]
    scores = {("h", scope): score for scope in anatomy.scopes["h"]}
    keep = keep_best(anatomy, scores, {**anatomy.sizes, "h": h - 2})
    for array in keep.arrays.values():
        assert array.tolist() == [list(range(h - 2))] * g
    assert keep.sizes()["h"] == h - 2


def test_ties_go_to_the_lower_index(parents: dict[str, Parent]) -> None:
    anatomy = parents["llama"].anatomy
    scores = {("f", scope): np.zeros(anatomy.sizes["f"]) for scope in anatomy.scopes["f"]}
    keep = keep_best(anatomy, scores, {**anatomy.sizes, "f": 7})
    assert all(a.tolist() == list(range(7)) for a in keep.arrays.values())
