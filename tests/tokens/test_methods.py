"""Each method on one sequence, against its plain form; what goes, what stays, what is lost."""

from __future__ import annotations

import pytest
import torch

from secateur.tokens.choice import Choice, Options, Row, reduced
from secateur.tokens.methods import METHODS
from tests.tokens import plain


def row(n: int, d: int = 6, seed: int = 0) -> Row:
    g = torch.Generator().manual_seed(seed)
    return Row(torch.rand(n, generator=g, dtype=torch.float64), torch.randn(n, d, generator=g, dtype=torch.float64))


def pairs(choice: Choice) -> list[tuple[int, int, bool]]:
    assert bool(choice.residual.all())
    return list(zip(choice.removed.tolist(), choice.target.tolist(), choice.hidden.tolist(), strict=True))


@pytest.mark.parametrize("n", [2, 3, 8, 13, 40])
@pytest.mark.parametrize("causal", [False, True])
def test_utrc_is_its_plain_form(n: int, causal: bool) -> None:
    for remove in {0, 1, n // 4, n // 2}:
        for prune in (0.0, 0.5, 1.0):
            given = row(n, seed=n)
            got = pairs(METHODS["utrc"].choose(given, remove, Options(prune=prune, causal=causal)))
            want = plain.utrc(given, remove, prune, causal)
            assert sorted(got) == sorted(want)
            assert all(j > i for i, j, _ in got) or not causal


@pytest.mark.parametrize("n", [2, 3, 8, 13, 40])
def test_pumer_is_its_plain_form(n: int) -> None:
    for remove in {0, 1, n // 4, n // 2}:
        given = row(n, seed=n)
        assert sorted(pairs(METHODS["pumer"].choose(given, remove, Options()))) == sorted(plain.pumer(given, remove))


def test_matching_in_pieces_is_matching_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = row(60)
    whole = METHODS["utrc"].choose(given, 20, Options())
    monkeypatch.setattr("secateur.tokens.choice.CHUNK_ENTRIES", 70)
    parts = METHODS["utrc"].choose(given, 20, Options())
    assert pairs(whole) == pairs(parts)


def test_evit_fuses_by_importance() -> None:
    given = row(9)
    found = METHODS["evit"].choose(given, 3, Options())
    order = sorted(range(8), key=lambda i: float(given.importance[i]))
    assert found.removed.tolist() == order[:3] and set(found.target.tolist()) == {order[3]}
    output = torch.randn(9, 4, dtype=torch.float64)
    keep = torch.tensor([i for i in range(9) if i not in order[:3]])
    got = reduced(found, torch.zeros_like(output), output, keep)
    weights = given.importance[order[:4]]
    want = (weights[:, None] * output[order[:4]]).sum(0) / weights.sum()
    torch.testing.assert_close(got[keep.tolist().index(order[3])], want, rtol=0, atol=1e-12)
    causal = METHODS["evit"].choose(given, 3, Options(causal=True))
    assert causal.hidden.tolist() == [i < order[3] for i in order[:3]]


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("n", [2, 5, 16, 33])
def test_every_method_removes_so_many_and_never_the_last(method: str, n: int) -> None:
    for remove in range(n // 2 + 1):
        found = METHODS[method].choose(row(n), remove, Options(seed=4))
        assert len(set(found.removed.tolist())) == remove
        assert n - 1 not in found.removed.tolist()
        into = set(found.target[found.hidden | found.residual].tolist())
        assert not into & set(found.removed.tolist())


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].scores])
def test_planted_worthless_tokens_go_first(method: str) -> None:
    given = row(20)
    planted = [1, 4, 5, 11, 17]
    given.importance[planted] = 0.0
    if method == "utrc":  # it takes those of the worthless half that have the closest partner
        given.branch[planted] = given.branch[19].clone()
    found = METHODS[method].choose(given, len(planted), Options())
    assert sorted(found.removed.tolist()) == planted


@pytest.mark.parametrize("method", ["utrc", "pumer", "evit"])
def test_merging_duplicates_loses_nothing(method: str) -> None:
    """Every second token repeats its right neighbour: what is left is the sequence without repeats."""
    n = 16
    g = torch.Generator().manual_seed(2)
    single = torch.randn(n // 2, 5, generator=g, dtype=torch.float64).repeat_interleave(2, 0)
    residual = torch.randn(n // 2, 5, generator=g, dtype=torch.float64).repeat_interleave(2, 0)
    importance = torch.ones(n, dtype=torch.float64)
    importance[::2] = 0.1
    if method == "evit":  # it fuses all that go: they must all be the same
        single[:] = single[0]
        residual[:] = residual[0]
    found = METHODS[method].choose(Row(importance, single), n // 2, Options(prune=0.0))
    keep = torch.tensor([i for i in range(n) if i not in found.removed.tolist()])
    got = reduced(found, residual, residual + single, keep)
    torch.testing.assert_close(got, (residual + single)[::2], rtol=0, atol=1e-12)


def test_both_branches_lose_the_same_tokens_and_merge_as_told() -> None:
    given, residual = row(24, seed=5), torch.randn(24, 6, dtype=torch.float64)
    found = METHODS["utrc"].choose(given, 9, Options())
    assert not bool(found.hidden.all()) and bool(found.hidden.any())
    keep = torch.tensor([i for i in range(24) if i not in found.removed.tolist()])
    got = reduced(found, residual, residual + given.branch, keep)
    torch.testing.assert_close(got, plain.stream(residual, residual + given.branch, pairs(found)), rtol=0, atol=1e-12)
    untouched = [i for i in keep.tolist() if i not in found.target.tolist()]
    assert untouched
    for i in untouched:  # bit for bit
        assert torch.equal(got[keep.tolist().index(i)], (residual + given.branch)[i])


def test_the_random_method_follows_its_seed() -> None:
    a, b, c = (METHODS["random"].choose(row(50), 10, Options(seed=s)).removed.tolist() for s in (1, 1, 2))
    assert a == b != c


def test_the_stride_is_even() -> None:
    gone = METHODS["stride"].choose(row(101), 10, Options()).removed.tolist()
    assert gone == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
