"""Every quantiser against its definition: grids, identities, orders, plain loops."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from secateur.errors import UsageError
from secateur.layerwise.base import Problem
from secateur.layerwise.gram import Gram
from secateur.layerwise.quantize import QUANTIZE, decoupleq, gptq, higgs, nupes, obq, rtn
from secateur.layerwise.quantize.grids import Format, Grid, fit
from secateur.layerwise.quantize.levels import gaussian_levels, gaussian_pairs
from secateur.layerwise.quantize.packed import dense
from secateur.layerwise.sweep import sweep, sweep_reference
from tests.layerwise.made import problem

PACKED = ("rtn", "gptq", "obq", "decoupleq", "bct")
WITH_BITS = [n for n in QUANTIZE if n != "onebit"]


def run(name: str, made: Problem, **given: object):
    method = QUANTIZE[name]
    known = {f.name for f in dataclasses.fields(method.settings)}
    return method.solve(made, method.configure(**{k: v for k, v in given.items() if k in known}))


def relative(made: Problem, solution) -> float:
    return (made.gram.error(made.weight - solution.weight) / made.energy) ** 0.5


@pytest.mark.parametrize("name", QUANTIZE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_every_method_returns(name, dtype):
    made = problem(24, 64, dtype=dtype)
    found = run(name, made, bits=3, group=16)
    assert found.weight.shape == made.weight.shape and found.weight.dtype == torch.float64
    assert torch.equal(found.weight, found.weight.to(dtype).double()), "not what a file of this dtype can hold"
    assert found.error == pytest.approx(made.gram.error(made.weight - found.weight), rel=1e-5)
    assert 0 < found.nbytes < made.weight.numel() * dtype.itemsize
    again = run(name, made, bits=3, group=16)
    assert torch.equal(found.weight, again.weight)


@pytest.mark.parametrize("name", WITH_BITS)
def test_more_bits_less_error_and_many_change_next_to_nothing(name):
    made = problem(16, 64)
    errors = [relative(made, run(name, made, bits=b, group=32)) for b in range(2, 9)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 < errors[0]


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("symmetric", [True, False])
def test_values_lie_on_the_stored_grid(name, symmetric):
    made = problem(16, 96, seed=3)
    found = run(name, made, bits=3, group=32, tile=32, symmetric=symmetric)
    codes, scale = found.parts["codes"], found.parts["scale"]
    assert codes.min() >= -4 and codes.max() <= 3 and len(codes.unique()) > 4
    zero = found.parts["zero"] if "zero" in found.parts else torch.zeros(scale.shape)
    for i, j in itertools.product(range(16), range(96)):
        g = j // (96 // scale.shape[1])
        value = (codes[i, j].float() - zero[i, g].float()) * scale[i, g]
        assert value.item() == found.weight[i, j].item()
    assert torch.equal(dense(dict(found.parts)).double(), found.weight)


def test_nearest_is_nearest():
    made = problem(8, 32)
    for symmetric in (True, False):
        grid = fit(made.weight.reshape(8, 2, 16), Format(3, 16, symmetric), dtype=torch.float32)
        levels = grid.values(torch.arange(-4, 4, dtype=torch.float64).expand(8, 2, 8))
        gaps = (made.weight.reshape(8, 2, 16, 1) - levels[:, :, None, :]).abs().amin(-1)
        assert torch.allclose((grid.snap(made.weight.reshape(8, 2, 16)) - made.weight.reshape(8, 2, 16)).abs(), gaps)


def test_asymmetric_grids_cover_one_sided_groups_and_hold_zero():
    w = torch.rand(6, 3, 16, dtype=torch.float64) + 0.5
    grid = fit(w, Format(4, 16, symmetric=False), dtype=torch.float32)
    assert ((grid.snap(w) - w).abs() <= grid.scale[..., None] * 0.5 + 1e-6).all()
    assert (grid.snap(torch.zeros_like(w)) == 0).all()


@pytest.mark.parametrize("search", ["mse", "gram"])
def test_the_search_lowers_what_it_judges_by(search):
    made = problem(16, 64, seed=5)
    loud = made.gram.matrix.diagonal().reshape(1, 64)
    blocks = made.weight.reshape(16, 1, 64)
    gaps = {
        s: fit(blocks, Format(3, 64), search=s, weights=loud, dtype=torch.float32).snap(blocks) - blocks
        for s in ("minmax", search)
    }
    judge = {"mse": lambda g: g.abs().pow(2.4).sum(-1), "gram": lambda g: (g.square() * loud).sum(-1)}[search]
    assert (judge(gaps[search]) <= judge(gaps["minmax"])).all()
    assert judge(gaps[search]).sum() < 0.9 * judge(gaps["minmax"]).sum()


@pytest.mark.parametrize(
    ("group", "static", "order"), [(16, False, "none"), (16, True, "none"), (0, False, "activation")]
)
def test_gptq_is_rtn_when_inputs_are_uncorrelated(group, static, order):
    made = problem(12, 48)
    diagonal = Gram(torch.diag(torch.rand(48, dtype=torch.float64) + 0.1), 100)
    made = dataclasses.replace(made, gram=diagonal)
    a = run("gptq", made, bits=3, group=group, static=static, order=order)
    assert torch.equal(a.weight, run("rtn", made, bits=3, group=group).weight)


@pytest.mark.parametrize("order", ["none", "activation"])
@pytest.mark.parametrize("group", [0, 16, 48])
def test_the_sweep_knows_its_error(order, group):
    made = problem(12, 96, seed=2, dtype=torch.float64)
    found = run("gptq", made, bits=3, group=group, order=order)
    delta, h = made.weight - found.weight, made.gram.damped(0.01)
    assert found.notes["sweep"] == pytest.approx(float(((delta @ h) * delta).sum()), rel=1e-9)


@pytest.mark.parametrize("block", [1, 7, 32, 128])
def test_blocks_change_nothing(block):
    made = problem(10, 80)
    factor = made.gram.sweep(0.01)
    grid = rtn.grid_of(made, Format(3, 0), "minmax")
    plain = Grid(grid.scale[:, 0], grid.zero[:, 0], grid.low, grid.high)

    def choose(j, rest):
        return plain.snap(rest[0][:, None])[:, 0]

    fast, loss = sweep(made.weight, factor, choose, block=block)
    slow, plain_loss = sweep_reference(made.weight, factor, choose)
    assert torch.allclose(fast, slow, atol=1e-12) and loss == pytest.approx(plain_loss, rel=1e-10)


def test_moving_scales_see_updated_weights():
    """Groups longer and shorter than a block: the blocked sweep equals the plain one, scales included."""
    for group, width in ((16, 64), (192, 384), (96, 192)):
        made = problem(6, width, dtype=torch.float64)
        codes, grid, _ = gptq.quantise(made, gptq.Settings(3, group, order="none"), Format(3, group))
        factor, size = made.gram.sweep(0.01), Format(3, group).width(width)
        assert size == group
        moving = Grid(torch.ones_like(grid.scale), torch.zeros_like(grid.zero), grid.low, grid.high)
        choose = gptq._moving(made, moving, Format(3, group), "mse", size)
        slow, _ = sweep_reference(made.weight, factor, choose)
        assert torch.allclose(moving.scale, grid.scale, rtol=1e-12, atol=0)
        assert torch.allclose(slow, grid.values(codes.reshape(6, -1, size)).reshape(6, width), atol=1e-12)


def test_the_order_of_columns_is_undone():
    """A linear whose inputs are renamed, with one scale a row, is the same linear renamed."""
    made, shuffle = problem(8, 40), torch.randperm(40)
    moved = dataclasses.replace(
        made, stored=made.weight[:, shuffle], gram=Gram(made.gram.matrix[shuffle][:, shuffle], made.gram.tokens)
    )
    a, b = (run("gptq", p, bits=3, group=0, order="activation").weight for p in (made, moved))
    assert torch.allclose(a[:, shuffle], b)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_order_of_methods_on_correlated_inputs(bits):
    errors = dict.fromkeys(("rtn", "gptq", "ordered", "decoupleq", "obq"), 0.0)
    for seed in range(4):
        made = problem(32, 64, seed=seed)
        common = dict(bits=bits, group=0, search="minmax")
        for name, found in {
            "rtn": run("rtn", made, **common),
            "gptq": run("gptq", made, **common, order="none"),
            "ordered": run("gptq", made, **common, order="activation"),
            "obq": run("obq", made, **common),
            "decoupleq": run("decoupleq", made, **common),
        }.items():
            errors[name] += relative(made, found)
    assert errors["ordered"] <= errors["gptq"] <= errors["rtn"]
    assert errors["decoupleq"] < errors["ordered"] and errors["obq"] < errors["rtn"]


def test_obq_against_plain_steps_and_enumeration():
    """The batched greedy equals a plain loop; its first step is the best of all single roundings."""
    made = problem(5, 6, tokens=64)
    h = made.gram.damped(0.01)
    inverse = torch.linalg.inv(h)
    grid = rtn.grid_of(made, Format(4, 0), "minmax")
    fast = obq.greedy(made.weight, inverse, grid)
    for i in range(5):
        one = Grid(grid.scale[i], grid.zero[i], grid.low, grid.high)
        w, left, first = made.weight[i].clone(), list(range(6)), None
        while left:
            costs = {}
            for p in left:  # round p, move what is left by least squares
                fixed = [k for k in range(6) if k not in left] + [p]
                costs[p] = _constrained(made.weight[i], h, w, fixed, p, one)
            off = [p for p in left if abs(w[p] - one.snap(w[p : p + 1])[0]) > one.scale[0] / 2 * (1 + 1e-9)]
            p = (
                max(off, key=lambda k: abs(w[k] - one.snap(w[k : k + 1])[0]))
                if off
                else min(costs, key=lambda k: costs[k][0])
            )
            first = first or p
            w = costs[p][1]
            left.remove(p)
        assert torch.allclose(w, fast[i], atol=1e-9)


def _constrained(weight, h, w, fixed, p, grid):
    """(error, weights): p rounded, other fixed entries as they are in w, the rest by least squares."""
    target = w.clone()
    target[p] = grid.snap(w[p : p + 1])[0]
    free = [k for k in range(len(w)) if k not in fixed]
    out = target.clone()
    if free:
        gap = target[fixed] - weight[fixed]
        out[free] = weight[free] - torch.linalg.solve(h[free][:, free], h[free][:, fixed] @ gap)
    delta = out - weight
    return float(delta @ h @ delta), out


def test_decoupleq_never_gets_worse_and_beats_gptq():
    for seed, bits in itertools.product(range(3), (2, 3)):
        made = problem(24, 96, seed=seed)
        found = run("decoupleq", made, bits=bits, group=32)
        trace = found.notes["trace"]
        assert all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(trace))
        assert trace[-1] < trace[0] and found.error < run("gptq", made, bits=bits, group=32).error


def test_decoupleq_scales_are_least_squares():
    """In float64 the gradient with respect to every scale is zero."""
    made = problem(6, 32, dtype=torch.float64)
    form = Format(3, 8)
    codes, grid, _ = gptq.quantise(made, gptq.Settings(3, 8), form)
    h = made.gram.damped(0.01)
    better = decoupleq.better_scales(made.weight, grid, codes, h, torch.float64)
    scale = better.scale.clone().requires_grad_()
    gap = made.weight - (codes.reshape(6, 4, 8) * scale[..., None]).reshape(6, 32)
    ((gap @ h) * gap).sum().backward()
    assert scale.grad.abs().max() < 1e-8 * (made.weight @ h).abs().max()


def test_rotation_is_the_hadamard_matrix():
    from scipy.linalg import hadamard

    x = torch.randn(5, 3, 16, dtype=torch.float64)
    h = torch.from_numpy(hadamard(16)).double() / 4
    assert torch.allclose(higgs.rotate(x), x @ h.T) and torch.allclose(higgs.rotate(higgs.rotate(x)), x)


def test_gaussian_grids():
    """Known distortions (Max 1960): 0.1175, 0.03454, 0.009497 at 2, 3, 4 bits; pairs are better than single levels."""
    for bits, known in ((2, 0.1175), (3, 0.03454), (4, 0.009497)):
        level = gaussian_levels(2**bits)
        x = torch.linspace(-8, 8, 400_001, dtype=torch.float64)
        density = torch.exp(-x.square() / 2) / (2 * torch.pi) ** 0.5 * (x[1] - x[0])
        scalar = float(((x[:, None] - level).square().amin(1) * density).sum())
        assert scalar == pytest.approx(known, rel=2e-3)
        y = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        pair = float(torch.cdist(y, gaussian_pairs(4**bits)).amin(1).square().mean() / 2)
        assert pair < 0.95 * scalar


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_higgs_beats_rounding_to_nearest_without_text(bits):
    """Weights with a few large ones, which rotation spreads."""
    made = problem(32, 128, seed=7)
    heavy = made.weight * torch.exp(torch.randn(32, 128, generator=torch.Generator().manual_seed(3)).double())
    made = dataclasses.replace(made, stored=heavy.float().double())
    gap = {n: (run(n, made, bits=bits, group=128).weight - made.weight).square().sum() for n in ("higgs", "rtn")}
    assert gap["higgs"] < 0.8 * gap["rtn"]


def test_nupes_exponent_against_a_scan():
    """On heavy tails: the search is as good as trying a hundred exponents, and clearly better than the uniform grid."""
    made = problem(32, 64, seed=1)
    made = dataclasses.replace(made, stored=(made.weight.sign() * made.weight.abs() ** 2.5).float().double())

    def error(exponent):
        return nupes.solve(made, nupes.Settings(4, 0, exponent=exponent, sweep=False)).error

    found = nupes.solve(made, nupes.Settings(4, 0, sweep=False))
    scanned = min(error(0.3 + 0.02 * k) for k in range(46))
    assert found.error <= 1.02 * scanned and found.error < 0.8 * error(1.0)
    assert nupes.solve(made, nupes.Settings(4, 0)).error < found.error


def test_onebit_is_the_best_rank_one_of_sizes():
    made = problem(12, 20)
    found = run("onebit", made)
    u, s, v = torch.linalg.svd(made.weight.abs())
    best = (made.weight.abs() - s[0] * torch.outer(u[:, 0], v[0])).square().sum()
    assert float((made.weight - found.weight).square().sum()) == pytest.approx(float(best), rel=1e-5)
    assert torch.equal(found.weight.sign(), torch.where(made.weight < 0, -1.0, 1.0).double())


def test_bct_scales_are_powers_of_two_shared_by_a_tile():
    found = run("bct", problem(32, 64), bits=4, tile=16)
    scale = found.parts["scale"].reshape(2, 16, 4)
    assert torch.equal(scale.log2(), scale.log2().round()) and (scale == scale[:, :1]).all()


def test_groups_that_do_not_divide():
    assert Format(4, 128).width(192) == 64  # 96 fits too, but no engine has a kernel for it
    assert Format(4, 96).width(192) == 96  # asked for
    assert Format(4, 128).width(172) == 86  # 2 * 86
    assert Format(4, 128).width(131) == 131  # prime: the whole row
    assert Format(4, 128).width(64) == 64 and Format(4, 0).width(640) == 640


@pytest.mark.parametrize(("bits", "group"), [(1, 8), (9, 8), (4, -1)])
def test_formats_that_cannot_be(bits, group):
    with pytest.raises(UsageError):
        Format(bits, group)


def test_zero_weights_stay_zero():
    made = problem(8, 32)
    made = dataclasses.replace(made, stored=torch.zeros(8, 32, dtype=torch.float64))
    for name in QUANTIZE:
        assert (run(name, made, bits=4, group=16).weight == 0).all(), name
