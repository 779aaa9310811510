"""Against the formulas written out in float64, and at the two ends: the same model, and a trimmed vocabulary."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from secateur.evaluation.agreement import AgreementSum, compare, js, kl
from secateur.evaluation.equality import load_strict
from secateur.evaluation.perplexity import perplexity
from secateur.evaluation.stream import Slice
from secateur.evaluation.windows import IGNORE, Source, make_windows

from .models import TEXT, hybrid, tokenizer

Array = NDArray[np.float64]


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum())


def entropies(p: Array, q: Array) -> tuple[float, float]:
    m = (p + q) / 2
    return divergence(p, q), (divergence(p, m) + divergence(q, m)) / 2


def divergence(a: Array, b: Array) -> float:
    return float(sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0))


def test_equals_the_formula_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    p, noise = (3 * torch.randn(2, 5, 11, generator=generator) for _ in range(2))
    q = p + 0.7 * noise
    targets = torch.randint(0, 11, (2, 5), generator=generator)
    targets[0, :2] = targets[1, 4] = IGNORE
    sums = AgreementSum()
    for cut in (slice(0, 3), slice(3, 5)):
        sums.update(Slice(targets[:, cut], torch.tensor([0, 1]), (p[:, cut], q[:, cut])))
    found = sums.result()
    want = []
    for i, j in zip(*np.where(targets.numpy() != IGNORE), strict=True):
        a, b = softmax(p[i, j].double().numpy()), softmax(q[i, j].double().numpy())
        want.append((*entropies(a, b), float(a.argmax() == b.argmax())))
    assert found.tokens == len(want) == 7
    assert (found.kl, found.js, found.top1) == pytest.approx(tuple(np.mean(want, 0)), rel=1e-5)
    assert 0 < found.top1 < 1


def test_tokens_without_mass_add_nothing_and_nan_is_not_hidden() -> None:
    log_p = torch.tensor([0.5, 0.5, 0.0]).log()
    log_q = torch.tensor([0.25, 0.5, 0.25]).log()
    assert float(kl(log_p, log_q)) == pytest.approx(0.5 * math.log(2))
    far = torch.tensor([0.0, 0.0, 1.0]).log()
    assert float(js(log_p, far)) == pytest.approx(math.log(2))
    assert float(kl(log_p, far)) == math.inf
    assert math.isnan(float(kl(log_p, torch.full((3,), math.nan))))


def test_a_model_agrees_with_itself(parent_folder: Path) -> None:
    text = make_windows(tokenizer(), [Source("t", (TEXT[:200],))], 24)
    found = compare(load_strict(parent_folder), load_strict(parent_folder), text).agreement
    assert (found.kl, found.top1, found.outside) == (0.0, 1.0, 0.0)
    assert found.js == pytest.approx(0, abs=1e-7)


def test_one_pass_finds_both_losses(parent_folder: Path, tmp_path: Path) -> None:
    parent, child = load_strict(parent_folder), load_strict(hybrid(tmp_path / "other", seed=1))
    text = make_windows(tokenizer(), [Source("t", (TEXT[:200],))], 24, 10)
    found = compare(parent, child, text)
    assert found.agreement.kl > 0.01
    assert found.parent[0].nats == pytest.approx(perplexity(parent, text)[0].nats, rel=1e-6)
    assert found.child[0].nats == pytest.approx(perplexity(child, text)[0].nats, rel=1e-6)


def test_a_trimmed_child_is_compared_on_the_kept_tokens(parent_folder: Path) -> None:
    """A child that is the parent with tokens renumbered and left out agrees with it wholly; the rest is outside."""
    parent, child = load_strict(parent_folder), load_strict(parent_folder)
    rows = torch.tensor([*range(1, 150), 0, *range(170, 300)])
    child.lm_head.weight = torch.nn.Parameter(parent.lm_head.weight[rows].clone())
    child.base_model.embeddings.weight = torch.nn.Parameter(parent.base_model.embeddings.weight[rows].clone())
    child.config.vocab_size = len(rows)
    ids = torch.randint(0, len(rows), (40,), generator=torch.Generator().manual_seed(0)).tolist()

    class Tokens:
        is_fast, bos_token_id = False, None

        def __call__(self, *_: object, **__: object) -> dict[str, list[int]]:
            return {"input_ids": ids}

        def decode(self, ids: list[int]) -> str:
            return ""

    text = make_windows(Tokens(), [Source("t", ("x",))], 16)
    found = compare(parent, child, text, rows=rows)
    assert found.agreement.kl == pytest.approx(0, abs=1e-6)
    assert found.agreement.top1 == 1
    outside, own = [], rows[torch.tensor(ids)]
    for at in range(0, 39, 16):
        p = parent(own[None, at : min(at + 16, 39)], use_cache=False).logits[0].detach().double().softmax(-1)
        outside.extend((1 - p[:, rows].sum(-1)).tolist())
    assert found.agreement.outside == pytest.approx(np.mean(outside), rel=1e-4)
    assert found.agreement.outside > 0.01
    assert found.parent[0].nats == pytest.approx(found.child[0].nats, rel=1e-5)
