"""Operations of a reduced prompt, and schedules solved for them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from secateur.errors import UsageError
from secateur.model import open_model
from secateur.search.resources import RESOURCES, Workload
from secateur.tokens.choice import kept
from secateur.tokens.cost import Costs, Layer, costs, described, matching
from secateur.tokens.runtime import reduce_tokens
from secateur.tokens.schedule import PUBLISHED, Schedule, default_locations, paper_share, share, solve
from secateur.tokens.settings import TokenReduction
from tests.contract.harness import Parent, double_precision
from tests.contract.rows import VOCAB


def equal_layers(count: int, head: float = 0.0, hidden: int = 8) -> Costs:
    """Layers of the paper's formula: the same operations per token, nothing else."""
    return Costs(tuple(Layer(1.0, 0.0, None, True, False) for _ in range(count)), head, hidden)


def by_hand(layers: int, locations: tuple[int, ...], p: float, head: float) -> float:
    """The paper's formula, written as its loop: a location removes the share p behind its layer."""
    left, total = 1.0, 0.0
    for layer in range(layers):
        total += left
        left *= 1 - p if layer in locations else 1
    return (total + head * left) / (layers + head)


#: Removed per location that brings a model to the share, in per cent: derived from the paper's formula.
PAPER = {(64, 0.9): 2.71, (64, 0.8): 5.85, (64, 0.7): 9.57, (48, 0.9): 3.49, (48, 0.8): 7.52, (48, 0.7): 12.32}
HEAD = {0.9: 2.61, 0.8: 5.62, 0.7: 9.18}


@pytest.mark.parametrize(("layers", "target"), list(PAPER))
def test_the_papers_ratios(layers: int, target: float) -> None:
    asked = TokenReduction(flops=target, counting="paper")
    found = solve(equal_layers(layers), asked, 2048, matches=True)
    assert found.locations == PUBLISHED[layers] and len(set(found.ratios)) == 1
    assert 100 * (1 - found.ratios[0]) == pytest.approx(PAPER[layers, target], abs=0.005)
    assert by_hand(layers, found.locations, 1 - found.ratios[0], 0.0) == pytest.approx(target, abs=1e-9)


@pytest.mark.parametrize("target", list(HEAD))
def test_the_papers_ratios_with_a_head(target: float) -> None:
    width, vocabulary = 2560, 50280
    head = width * vocabulary / (6 * width * width + 2 * 2 * width * 128)
    n = 1000
    found = solve(equal_layers(64, head), TokenReduction(flops=target, counting="paper-head"), n, matches=True)
    # costs are per token here, so the head of one token weighs as much as the head over all tokens over all layers
    assert 100 * (1 - found.ratios[0]) == pytest.approx(HEAD[target], abs=0.006)
    assert paper_share(64, found, head) == pytest.approx(target, abs=1e-9)
    assert by_hand(64, found.locations, 1 - found.ratios[0], head) == pytest.approx(target, abs=1e-9)


COUNTED = ["llama", "mistral", "mamba", "mamba2", "nemotron_h", "zamba2", "falcon_h1", "kimi_linear", "gemma3_text"]


@pytest.mark.parametrize("name", COUNTED)
def test_costs_are_those_of_the_models_own_formula(name: str, parents: dict[str, Parent]) -> None:
    with open_model(parents[name].folder) as model:
        found = costs(model)
        for n in (1, 2, 5, 17, 300):
            meter = RESOURCES["prefill_flops"].meter(model, Workload(context=n))
            want = meter(model.anatomy.sizes, frozenset(range(model.anatomy.n_layers)))
            assert found.operations([n] * model.anatomy.n_layers) == want


def test_share_counts_layer_by_layer() -> None:
    layers = (Layer(10.0, 0.0, None, True, False), Layer(4.0, 2.0, None, False, True), Layer(7.0, 1.0, 3, False, True))
    found = Costs(layers, 5.0, 6)
    schedule = Schedule((0, 1), (0.75, 0.5))
    n, half, quarter = 9, 7, 4  # 0.75 * 9 rounded up; half of 7 rounded up
    pairs = [sum(min(i + 1, w) for i in range(m)) for m, w in ((half, 99), (quarter, 3))]
    whole = 9 * 10 + (9 * 4 + 2 * 45) + (9 * 7 + sum(min(i + 1, 3) for i in range(9))) + 5
    want = 9 * 10 + (half * 4 + 2 * pairs[0]) + (quarter * 7 + pairs[1]) + 5
    assert share(found, schedule, n, matches=False) == want / whole
    similarities = 2 * 6 * (4 * 5) + 2 * 6 * (3 * 4)
    assert share(found, schedule, n, matches=True) == (want + similarities) / whole
    assert matching(9, 6) == 2 * 6 * 4 * 5 and matching(8, 6) == 2 * 6 * 4 * 4


@pytest.mark.parametrize("name", ["llama", "mamba2", "nemotron_h"])
@pytest.mark.parametrize("target", [0.9, 0.8])
def test_solved_schedules_reach_their_share(name: str, target: float, networks: Any) -> None:
    found = costs(described(networks[name]))
    for method, n in (("utrc", 4096), ("stride", 4096)):
        asked = TokenReduction(flops=target, method=method, locations=(0, 1))
        matches = method == "utrc"
        if matches and name != "nemotron_h":
            n = 64  # similarities over so narrow a model soon cost more than its layers
        reached = share(found, solve(found, asked, n, matches=matches), n, matches=matches)
        assert reached == pytest.approx(target, abs=4 / n)


def test_what_cannot_be_reached_is_refused() -> None:
    with pytest.raises(UsageError, match="larger share"):
        solve(equal_layers(10), TokenReduction(flops=0.3), 512, matches=False)
    with pytest.raises(UsageError, match="up to 8"):
        solve(equal_layers(10), TokenReduction(flops=0.9, locations=(9,)), 512, matches=False)
    with pytest.raises(UsageError, match="attention"):
        default_locations(equal_layers(10), "attention")


def test_strengths_share_out_the_cut() -> None:
    asked = TokenReduction(flops=0.8, locations=(2, 5), strengths=(1.0, 0.25))
    found = solve(equal_layers(12), asked, 512, matches=False)
    assert math.log(found.ratios[0]) == pytest.approx(4 * math.log(found.ratios[1]))
    assert paper_share(12, found) == pytest.approx(0.8, abs=1e-9)


def test_kept_tokens() -> None:
    assert [kept(n, 0.75) for n in (1, 2, 3, 4, 8, 9)] == [1, 2, 3, 3, 6, 7]
    assert [kept(n, 0.5) for n in (1, 2, 3, 4, 9)] == [1, 1, 2, 2, 5]
    assert [kept(n, 1.0) for n in range(5)] == [1, 1, 2, 3, 4]
    for ratio in (0.5, 0.61, 0.9):  # rows of a batch rely on it
        steps = [kept(n + 1, ratio) - kept(n, ratio) for n in range(1, 200)]
        assert set(steps) <= {0, 1}


@pytest.mark.parametrize("name", ["llama", "mamba2", "nemotron_h"])
def test_a_profiler_counts_the_same_matrix_products(name: str, networks: Any, parents: dict[str, Parent]) -> None:
    """Linears of the reduced pass, as torch counts them, against two operations per entry and token left."""
    network, n = networks[name], 40
    last = parents[name].anatomy.n_layers - 2
    asked = TokenReduction(locations=tuple(sorted({0, last})), ratios=(0.7,) * len({0, last}), method="stride")
    ids = torch.randint(3, VOCAB, (1, n), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), double_precision(), reduce_tokens(network, asked) as reducing:
        with FlopCounterMode(display=False) as counter:
            network(ids, use_cache=False, logits_to_keep=1)
        tokens = reducing.schedule(n).tokens(n, len(reducing.layers))
    linears = sum(
        counter.get_flop_counts().get(f"{type(network).__name__}.{module}", {}).get(op, 0)
        for module in _linears(network)
        for op in (torch.ops.aten.mm, torch.ops.aten.addmm)
    )
    want = sum(
        2 * m.weight.numel() * read
        for layer, read in zip(reducing.layers, tokens, strict=True)
        for m in layer.modules()
        if isinstance(m, torch.nn.Linear)
    )
    assert linears == want + 2 * network.lm_head.weight.numel()


def _linears(network: Any) -> list[str]:
    return [name for name, m in network.named_modules() if isinstance(m, torch.nn.Linear)]
