"""Losses behind reduced prompts and on survivors, by hand; the searched schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from secateur.errors import UsageError
from secateur.tokens.calibrated import calibrate
from secateur.tokens.cost import costs, described
from secateur.tokens.runtime import reduce_tokens
from secateur.tokens.schedule import share, solve
from secateur.tokens.score import Judge, judge, survivors
from secateur.tokens.settings import TokenReduction
from tests.contract.harness import double_precision
from tests.contract.rows import VOCAB

PROMPT, AFTER = 24, 8


def windows(rows: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(3, VOCAB, (rows, PROMPT + AFTER), generator=torch.Generator().manual_seed(seed))


def nats(logits: Tensor, targets: Tensor) -> float:
    """Mean, one token after the other."""
    log_p = logits.log_softmax(-1)
    return sum(-float(log_p[i, t]) for i, t in enumerate(targets.tolist())) / len(targets)


@pytest.mark.parametrize("name", ["nemotron_h", "llama"])
def test_scores_by_hand(name: str, networks: Any) -> None:
    network, asked = networks[name], TokenReduction(locations=(0,), ratios=(0.6,))
    with torch.no_grad(), double_precision():
        found = judge(network, windows(), PROMPT, batch=2)
        got, none = found.score(asked), found.score(None)
        kept = survivors(network, asked, [windows()])
        want, full, at_survivors, full_there = [], [], [], []
        for ids in windows():
            plain = network(ids[None], use_cache=False).logits[0]
            with reduce_tokens(network, asked) as reducing:
                prompt = network(ids[None, :PROMPT], use_cache=True).logits[0, -1:]
            with reduce_tokens(network, asked, prompt=PROMPT):
                rest = network(ids[None], use_cache=False).logits[0, -AFTER:]
            torch.testing.assert_close(
                network(ids[None, :PROMPT], use_cache=False).logits[0], plain[:PROMPT], rtol=0, atol=1e-9
            )
            want.append(nats(torch.cat([prompt, rest[:-1]]), ids[PROMPT:]))
            full.append(nats(plain[PROMPT - 1 : -1], ids[PROMPT:]))
            with reduce_tokens(network, asked) as reducing:
                reduced = network(ids[None], use_cache=False).logits[0]
            assert reducing.positions is not None
            places = reducing.positions[0, :-1]
            at_survivors.append(nats(reduced[:-1], ids[places + 1]))
            full_there.append(nats(plain[places], ids[places + 1]))
    rows = len(windows())
    assert got.loss == pytest.approx(sum(want) / rows, abs=1e-5)
    assert got.full == none.loss == none.full == pytest.approx(sum(full) / rows, abs=1e-5)
    assert none.kl == pytest.approx(0, abs=1e-9) and got.kl > 1e-3 and got.tokens == rows * AFTER
    assert kept.loss == pytest.approx(sum(at_survivors) / rows, abs=1e-5)
    assert kept.full == pytest.approx(sum(full_there) / rows, abs=1e-5)


@pytest.fixture(scope="module")
def judged(networks: Any) -> Judge:
    with double_precision():
        return judge(networks["nemotron_h"], windows(8), PROMPT, batch=2)


def test_the_search_ends_at_its_best_and_spends_the_same(judged: Judge) -> None:
    asked = TokenReduction(flops=0.8, method="stride")
    with double_precision():
        found = calibrate(judged, asked, trials=12, seed=1)
        again = calibrate(judged, asked, trials=12, seed=1)
        first, rest = judged.parted(4)
        assert rest.score(found.asked).kl == pytest.approx(found.kl, abs=1e-12)
        assert rest.score(asked).kl == pytest.approx(found.paper, abs=1e-12)
    assert found == again and len(found.tried) == 12
    assert found.kl <= found.paper
    best_first = sorted(found.tried, key=lambda t: t[2])[:4]
    with double_precision():
        finals = [rest.score(asked.but(locations=at, strengths=s)).kl for at, s, _ in best_first]
        again_first = first.score(asked.but(locations=best_first[0][0], strengths=best_first[0][1])).kl
        gain = rest.each(asked) - rest.each(asked.but(locations=found.asked.locations, strengths=found.asked.strengths))
    assert again_first == best_first[0][2] and (len(first.batches), len(rest.batches)) == (1, 3)
    if found.kl < found.paper:
        assert found.kl == pytest.approx(min(finals)) and gain.mean() > gain.std() / len(gain) ** 0.5
    else:
        assert found.kl == found.paper
    costs_ = costs(described(judged.network))
    for locations, strengths, _ in found.tried:
        one = asked.but(locations=locations, strengths=strengths)
        spent = share(costs_, solve(costs_, one, PROMPT, matches=False), PROMPT, matches=False)
        assert spent == pytest.approx(0.8, abs=1.5 / PROMPT)  # whole tokens
    with pytest.raises(UsageError, match="below 1"):
        calibrate(judged, TokenReduction(locations=(0,), ratios=(0.9,)))
