"""The arena: everything measured once, written down, in time, the same for any number of processes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from secateur.errors import UsageError
from secateur.model import open_model
from secateur.search import arena as arena_module
from secateur.search.agreement import agreement
from secateur.search.bench import built
from secateur.search.candidates import Candidate
from secateur.search.cheap import lost
from secateur.search.front import on_front
from secateur.search.heal import BATCH, heal
from secateur.search.journal import Journal
from secateur.search.ladder import CHEAP, Rung, climb
from secateur.search.stages import Score, Stage
from tests.contract.harness import Parent
from tests.search.test_candidates import QUICK

from .arenas import Counted, arena_of

PLAIN = Stage("plain", (0, 1, 2, 3))


def test_nothing_is_scored_twice(parents: dict[str, Parent]) -> None:
    with open_model(parents["llama"].folder) as model:
        arena = arena_of(model)
        counted, asked = Counted(arena), 0
        whole = arena.bench.whole.forward

        def forward(*args: Any, **options: Any) -> Any:
            nonlocal asked
            asked += 1
            return whole(*args, **options)

        arena.bench.whole.forward = forward
        a, b, c = arena.space.random(arena.rng, 3)
        first = arena.score([a, b, a], PLAIN)
        assert counted.calls == 2 and first[0] == first[2]
        assert arena.score([c, b, a], PLAIN)[1:] == [first[1], first[0]] and counted.calls == 3
        assert arena.score([a], Stage("plain", (0, 1))) != [] and counted.calls == 4, "another stage"
        assert asked == 2, "the parent reads four windows in two batches, once for all candidates"
        assert arena.rank([b, c, a, b], PLAIN) == sorted([b, c, a], key=lambda s: arena.scores[s, PLAIN].kl)


def test_scores_are_the_plain_formulas(parents: dict[str, Parent]) -> None:
    """KL(parent || candidate) per token and next-token loss, from full logits; a skipped layer is a cut layer."""
    with open_model(parents["nemotron_h"].folder) as model:
        arena = arena_of(model)
        narrow = arena.space.random(arena.rng, 1)[0]
        shallow = arena.space.at({}, [i for i in range(model.anatomy.n_layers) if i != 1])
        for candidate in (narrow, shallow):
            arena.score([candidate], PLAIN)
            ids = arena.bench.windows[:4]
            with torch.no_grad(), built(candidate, arena.bench, Stage("copy", (0,), heal=1)) as cut:
                assert cut is not arena.bench.whole
                truth, mine = (m(ids, use_cache=False).logits.log_softmax(-1) for m in (arena.bench.whole, cut))
            kl = (truth.exp() * (truth - mine)).sum(-1).mean()
            nll = functional.nll_loss(mine[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            found = arena.scores[candidate, PLAIN]
            assert (found.kl, found.nll) == (pytest.approx(float(kl), rel=1e-4), pytest.approx(float(nll), rel=1e-4))


def test_a_candidate_that_diverges_comes_last(parents: dict[str, Parent]) -> None:
    with open_model(parents["llama"].folder) as model:
        arena = arena_of(model)
        a, b = arena.space.random(arena.rng, 2)
        results = iter([(float("nan"), 1.0), (9.0, 1.0)])
        arena.bench.compare = lambda module, at: next(results)  # type: ignore[method-assign, assignment]
        assert arena.rank([a, b], PLAIN) == [b, a]
        assert arena.best is not None and arena.best.shape == b


def test_a_journal_survives_a_crash_and_serves_other_strategies(parents: dict[str, Parent], tmp_path: Path) -> None:
    with open_model(parents["llama"].folder) as model:
        arena = arena_of(model, work=tmp_path)
        shapes = arena.space.random(arena.rng, 3)
        arena.score(shapes, PLAIN)
        assert arena.journal is not None
        arena.journal.close()
        file = tmp_path / "scores-0.jsonl"
        file.write_text(file.read_text()[:-9])  # the last line was cut off
        again = arena_of(model, work=tmp_path, seed=7)
        counted = Counted(again)
        assert again.score(shapes, PLAIN) == arena.score(shapes, PLAIN)
        assert counted.calls == 1
        third = arena_of(model, work=tmp_path)
        counted = Counted(third)
        third.score(shapes, PLAIN)
        assert counted.calls == 0, "what follows a line that was cut off is read again"
        assert third.spent == pytest.approx(again.spent)
    with pytest.raises(UsageError, match="another search: model was"):
        Journal(tmp_path, {"model": "another"})
    assert json.loads(file.read_text().splitlines()[0])["search"]


def test_time_decides_where_a_search_ends_and_is_replayed(parents: dict[str, Parent], tmp_path: Path) -> None:
    with open_model(parents["llama"].folder) as model:
        arena = arena_of(model, seconds=10.0, work=tmp_path)
        shapes = arena.space.random(arena.rng, 4)
        assert arena.journal is not None
        for shape, seconds in zip(shapes, (4.0, 5.0, 2.0, 1.0), strict=True):
            arena.journal.add(shape, PLAIN, Score(1.0, 1.0, seconds))
        arena.journal.close()
        replayed = arena_of(model, seconds=10.0, work=tmp_path)
        assert replayed.goes_on()
        assert replayed.afford(shapes, PLAIN) == shapes[:3], "what is begun is finished, then it ends"
        assert not replayed.goes_on() and replayed.spent == 11
        assert replayed.afford(shapes[3:], PLAIN) == shapes[3:], "one at least"
        assert arena_of(model, work=tmp_path).afford(shapes, PLAIN) == shapes, "without a budget all"


def test_processes_share_the_candidates(parents: dict[str, Parent], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of three processes measures a part; together they know what one alone would."""
    with open_model(parents["llama"].folder) as model:
        alone = arena_of(model)
        shapes = alone.space.random(alone.rng, 5)
        want = alone.score(shapes, PLAIN)
        parts: list[dict[Any, Score]] = []
        monkeypatch.setattr(arena_module, "world", lambda: 3)
        for rank in range(3):
            monkeypatch.setattr(arena_module, "rank", lambda r=rank: r)
            others = {s: alone.scores[s, PLAIN] for s in shapes}
            monkeypatch.setattr(arena_module, "gathered", lambda found, o=others: parts.append(found) or [o, found])
            assert arena_of(model).score(shapes, PLAIN) == pytest.approx(want, rel=1e-5)
        assert sorted(len(p) for p in parts) == [1, 2, 2]
        assert {s for p in parts for s in p} == set(shapes)


def test_climbing_reports_how_stages_agree(parents: dict[str, Parent]) -> None:
    with open_model(parents["llama"].folder) as model:
        arena = arena_of(model)
        shapes = arena.space.random(arena.rng, 4)
        last = Stage("last", (4, 5))
        for shape, (first, second) in zip(shapes, [(1, 5), (2, 4), (3, 6), (9, 0)], strict=True):
            arena.scores[shape, PLAIN], arena.scores[shape, last] = Score(first, 0.0), Score(second, 0.0)
        climbed = climb(arena, shapes, [Rung(PLAIN, 3), Rung(last, 1)])
        assert climbed.best == (shapes[1],) and climbed.stage == last
        (found,) = climbed.agreements
        assert (found.before, found.after, found.count) == ("plain", "last", 3)
        assert found.tau == pytest.approx(1 / 3)  # of three pairs two in the same order


@QUICK
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=8))
def test_tau_counts_pairs(pairs: list[tuple[int, int]]) -> None:
    """Tau-b by its definition: pairs in order less pairs out of order, over the pairs that either could rank."""
    signs = [
        (np.sign(a[0] - b[0]), np.sign(a[1] - b[1])) for a, b in itertools.combinations(pairs, 2)
    ]  # fmt: skip
    balance = sum(int(x * y) for x, y in signs)
    ranked = [sum(1 for s in signs if s[i] != 0) for i in (0, 1)]
    want = balance / np.sqrt(ranked[0] * ranked[1]) if all(ranked) else 0.0
    found = agreement("a", "b", [p[0] for p in pairs], [p[1] for p in pairs])
    assert found is not None and found.tau == pytest.approx(want)


@QUICK
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=9))
def test_the_front_is_what_nothing_beats(rows: list[tuple[int, int, int]]) -> None:
    def beats(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    want = [not any(beats(other, row) for other in rows) for row in rows]
    assert on_front(np.array(rows, dtype=float)).tolist() == want


def test_the_cheap_score_grows_with_what_goes(parents: dict[str, Parent]) -> None:
    with open_model(parents["nemotron_h"].folder) as model:
        arena = arena_of(model)
        whole = arena.space.whole()
        assert lost(whole, arena.bench) == pytest.approx(0, abs=1e-9)
        for smaller in arena.space.steps(whole, down=True):
            assert lost(smaller, arena.bench) >= 0
        without = Candidate(whole.sizes, whole.layers[1:])
        assert lost(without, arena.bench) > 0
        assert arena.score([whole, without], CHEAP) == [lost(whole, arena.bench), lost(without, arena.bench)]
        assert arena.best is None, "importance is no KL"


def test_healing_is_deterministic_and_learns(parents: dict[str, Parent]) -> None:
    with open_model(parents["llama"].folder) as model:
        arena = arena_of(model)
        arena.bench.lessons = arena.bench.lessons[:BATCH]  # type: ignore[index]
        arena.bench.tutor.windows = arena.bench.lessons  # type: ignore[union-attr]
        tokens = 12 * BATCH * arena.bench.windows.shape[1]
        candidate = arena.space.random(arena.rng, 1)[0]
        curves = []
        for _ in range(2):
            with built(candidate, arena.bench, Stage("copy", (0,), heal=tokens)) as module:
                curves.append(heal(module, arena.bench, tokens))
        assert curves[0] == curves[1] and len(curves[0]) == 12
        assert curves[0][-1] < curves[0][0], "the same lessons again and again are learnt"
