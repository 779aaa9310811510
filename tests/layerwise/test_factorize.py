"""Factorising methods against brute force and against each other, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from secateur.errors import UsageError
from secateur.export.formats.factors import multiplied
from secateur.layerwise.base import Problem, Unfit
from secateur.layerwise.factorize import FACTORIZE
from secateur.layerwise.factorize.asvd import asvd
from secateur.layerwise.factorize.curing import core, curing, deim
from secateur.layerwise.factorize.eora import eora
from secateur.layerwise.factorize.factors import Factors, rank_of, root_of, tail
from secateur.layerwise.factorize.lord import lord, lord_centred
from secateur.layerwise.factorize.method import LowRank
from secateur.layerwise.factorize.svd import svd
from secateur.layerwise.factorize.svd_llm import spectrum, svd_llm
from secateur.layerwise.gram import Gram

M, D, TOKENS = 18, 24, 500
FORMULAS = {"svd": svd, "asvd": asvd, "svd-llm": svd_llm, "lord": lord, "curing": curing}


def layer(seed: int = 0, m: int = M, d: int = D, tokens: int = TOKENS) -> tuple[Tensor, Tensor]:
    """(weight (m, d), inputs (tokens, d)): correlated channels of different sizes."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, d, generator=g, dtype=torch.float64) @ torch.randn(d, d, generator=g, dtype=torch.float64)
    x *= torch.linspace(0.1, 2, d, dtype=torch.float64)
    return torch.randn(m, d, generator=g, dtype=torch.float64), x


def lost(weight: Tensor, found: Factors, x: Tensor) -> float:
    """|| (W - W') X^T ||_F over the tokens themselves."""
    return float(((weight - found.product) @ x.T).norm())


@pytest.mark.parametrize("rank", [1, 6, 17])
def test_the_loss_of_svd_llm_is_the_tail_of_its_spectrum(rank: int) -> None:
    w, x = layer()
    gram = x.T @ x
    want = tail(spectrum(w, gram), rank)
    assert lost(w, svd_llm(w, gram, rank), x) == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("rank", [1, 6, 17])
def test_whitenings_and_output_pca_give_one_product(rank: int) -> None:
    """SVD-LLM (Cholesky), EoRA (eigenvectors), LLM-ROM (uncentred output PCA): written out here, one function there."""
    w, x = layer()
    gram = x.T @ x
    ours = svd_llm(w, gram, rank).product
    scale = float(ours.abs().max())

    def whitened(s: Tensor) -> Tensor:
        u, sigma, vt = torch.linalg.svd(w @ s, full_matrices=False)
        return (u[:, :rank] * sigma[:rank]) @ vt[:rank] @ torch.linalg.inv(s)

    values, vectors = torch.linalg.eigh(gram)
    top = torch.linalg.eigh((x @ w.T).T @ (x @ w.T))[1][:, -rank:]
    for other in (
        whitened(torch.linalg.cholesky(gram)),
        whitened(vectors * values.sqrt()),
        top @ top.T @ w,
        lord(w, gram, rank).product,
    ):
        assert float((ours - other).abs().max()) < 1e-12 * max(1.0, scale)


def test_least_error_is_never_beaten() -> None:
    """svd-llm <= all others by theorem; <= asvd <= svd here, where channels differ in size."""
    for seed in range(8):
        w, x = layer(seed)
        got = {name: lost(w, f(w, x.T @ x, 6), x) for name, f in FORMULAS.items()}
        assert all(got["svd-llm"] <= v * (1 + 1e-9) for v in got.values()), got
        assert got["asvd"] < got["svd"], got
        assert got["svd"] < got["curing"] * 10, got


def test_local_search_finds_nothing_better_than_svd_llm() -> None:
    """Alternating least squares from another start ends at the same error, not below it."""
    w, x = layer(3)
    rank, y = 4, x @ w.T
    left = torch.randn(M, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for _ in range(300):
        right = torch.linalg.lstsq(x, y @ left @ torch.linalg.inv(left.T @ left)).solution.T
        left = torch.linalg.lstsq(x @ right.T, y).solution.T
    best = lost(w, svd_llm(w, x.T @ x, rank), x)
    assert lost(w, Factors(left, right), x) == pytest.approx(best, rel=1e-6)
    assert lost(w, Factors(left, right), x) >= best * (1 - 1e-9)


def test_asvd_is_svd_llm_when_channels_are_uncorrelated_and_svd_when_alpha_is_nothing() -> None:
    w, x = layer()
    diagonal = torch.diag((x.T @ x).diagonal())
    assert torch.allclose(asvd(w, diagonal, 5).product, svd_llm(w, diagonal, 5).product, atol=1e-10)
    assert torch.allclose(asvd(w, x.T @ x, 5, alpha=0.0).product, svd(w, x.T @ x, 5).product, atol=1e-10)


def test_centred_output_pca_with_its_bias_beats_the_uncentred_one_without() -> None:
    w, x = layer(1)
    x = x + 30
    gram, rank = x.T @ x, 6
    found, bias = lord_centred(w, gram, x.mean(0), len(x), rank)
    with_bias = float((x @ w.T - x @ found.product.T - bias).norm())
    assert with_bias < lost(w, lord(w, gram, rank), x)
    y = (x - x.mean(0)) @ w.T
    assert with_bias == pytest.approx(tail(torch.linalg.svdvals(y), rank), rel=1e-8)


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_full_rank_is_exact_and_error_falls_with_rank(name: str) -> None:
    w, x = layer(2)
    errors = [lost(w, FORMULAS[name](w, x.T @ x, r), x) for r in (2, 6, 10, 14, M)]
    assert errors[-1] < 1e-9 * float((w @ x.T).norm())
    if name in ("svd-llm", "lord"):
        assert all(b < a for a, b in itertools.pairwise(errors))


def test_eora_restores_the_layer_at_full_rank_and_loses_the_tail_below() -> None:
    w, x = layer(4)
    gram, coarse = x.T @ x, (w * 2).round() / 2
    assert torch.allclose(coarse + eora(w, coarse, gram, M).product, w, atol=1e-10)
    rank = 3
    left = w - coarse - eora(w, coarse, gram, rank).product
    assert float((left @ x.T).norm()) == pytest.approx(tail(spectrum(w - coarse, gram), rank), rel=1e-10)
    plain = w - coarse - svd(w - coarse, gram, rank).product
    assert float((left @ x.T).norm()) < float((plain @ x.T).norm())


def test_eora_restores_the_layer_where_the_gram_has_no_full_rank() -> None:
    """Fewer tokens than inputs, and an input that never fires."""
    w, x = layer(5, tokens=7)
    x[:, 3] = 0
    coarse = w.round()
    assert torch.allclose(coarse + eora(w, coarse, x.T @ x, M).product, w, atol=1e-8)


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_dead_and_dependent_inputs(name: str) -> None:
    """Finite factors, and no error where the tokens span no more than the rank."""
    w, x = layer(6, tokens=5)
    x[:, :4] = 0
    found = FORMULAS[name](w, x.T @ x, 6)
    assert bool(torch.isfinite(found.product).all())
    if name in ("svd-llm", "lord"):
        assert lost(w, found, x) < 1e-4 * float((w @ x.T).norm())


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_no_tokens_at_all(name: str) -> None:
    """A starved expert: without a Gram only the weight speaks."""
    w, _ = layer(7)
    found = FORMULAS[name](w, torch.zeros(D, D), 6)
    assert bool(torch.isfinite(found.product).all())
    if name in ("svd", "asvd", "svd-llm"):
        assert torch.allclose(found.product, svd(w, torch.eye(D), 6).product, atol=1e-10)


def test_cur_is_exact_for_a_weight_of_that_rank() -> None:
    g = torch.Generator().manual_seed(8)
    w = torch.randn(M, 5, generator=g, dtype=torch.float64) @ torch.randn(5, D, generator=g, dtype=torch.float64)
    _, x = layer(8)
    assert torch.allclose(curing(w, x.T @ x, 5).product, w, atol=1e-9)


@pytest.mark.parametrize("on_outputs", [False, True])
def test_no_change_of_the_core_lowers_the_error(on_outputs: bool) -> None:
    w, x = layer(9)
    gram = x.T @ x if on_outputs else torch.eye(D, dtype=torch.float64)
    rows, columns = torch.tensor([0, 3, 7, 11]), torch.tensor([1, 4, 9, 20])
    u = core(w, w[:, columns], w[rows], gram if on_outputs else None)
    s = root_of(gram).root

    def error(middle: Tensor) -> float:
        return float(((w - w[:, columns] @ middle @ w[rows]) @ s).norm())

    g = torch.Generator().manual_seed(0)
    for size in (1e-1, 1e-3):
        for _ in range(20):
            assert error(u) <= error(u + size * torch.randn(4, 4, generator=g, dtype=torch.float64)) + 1e-12


def test_deim_picks_indices_that_interpolate() -> None:
    """All different, the picked rows invertible, and far better conditioned than the first rows."""
    basis = torch.linalg.qr(torch.randn(40, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64))[0]
    basis[:6] *= 1e-3
    chosen = deim(basis)
    assert len(set(chosen.tolist())) == 6
    assert torch.linalg.cond(basis[chosen]) < 1e-2 * torch.linalg.cond(basis[:6]) + 50


@pytest.mark.parametrize("name", sorted(FACTORIZE))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_solution_is_what_its_stored_parts_say(name: str, dtype: torch.dtype) -> None:
    w, x = layer(10)
    problem = Problem("w", w.to(dtype).double(), Gram.of(x), dtype=dtype)
    method = FACTORIZE[name]
    got = method.solve(problem, method.configure(ratio=0.6))
    rank = rank_of(0.6, M, D)
    assert got.parts["left"].shape == (M, rank) and got.parts["right"].shape == (rank, D)
    assert got.parts["left"].dtype == dtype
    assert torch.equal(got.weight, multiplied(got.parts["left"], got.parts["right"]))
    assert got.nbytes == rank * (M + D) * dtype.itemsize < 0.6 * M * D * dtype.itemsize
    assert math.sqrt(got.error) == pytest.approx(float(((problem.weight - got.weight) @ x.T).norm()), rel=1e-6)


def test_a_rank_that_saves_nothing_does_not_fit() -> None:
    w, x = layer(11)
    with pytest.raises(Unfit, match="saves nothing"):
        FACTORIZE["svd-llm"].solve(Problem("w", w, Gram.of(x)), LowRank(rank=M))


@pytest.mark.parametrize(("ratio", "error"), [(0.0, UsageError), (1.5, UsageError), (-1, UsageError), (0.001, Unfit)])
def test_ratios_that_cannot_be_had(ratio: float, error: type[Exception]) -> None:
    with pytest.raises(error, match="ratio"):
        rank_of(ratio, M, D)
