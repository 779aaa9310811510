"""What is read of a layer: against hooks of our own, and against attention weights that transformers puts out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from secateur.errors import SecateurError, UsageError
from secateur.kernels import fast
from secateur.tokens.importance import MEASURES, QUERIES, received
from secateur.tokens.runtime import reduce_tokens
from secateur.tokens.settings import TokenReduction
from tests.contract.harness import double_precision
from tests.contract.rows import VOCAB


def ids(n: int = 20, seed: int = 0) -> Tensor:
    return torch.randint(3, VOCAB, (2, n), generator=torch.Generator().manual_seed(seed))


def scores_of(network: Any, asked: TokenReduction, tokens: Tensor) -> Tensor:
    """S at the first location, caught where methods get it."""
    caught: list[Tensor] = []
    from secateur.tokens import runtime

    plain = runtime.batch.location

    def watched(*args: Any) -> Any:
        caught.append(args[5])
        return plain(*args)

    runtime.batch.location = watched  # type: ignore[assignment]
    try:
        with torch.no_grad(), double_precision(), reduce_tokens(network, asked):
            network(tokens, use_cache=False)
    finally:
        runtime.batch.location = plain  # type: ignore[assignment]
    return caught[0]


def inputs_of(network: Any, module: Any, tokens: Tensor) -> Tensor:
    """The first input of a module in a full pass."""
    caught: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda m, args: caught.append(args[0]))
    with torch.no_grad(), double_precision():
        network(tokens, use_cache=False)
    handle.remove()
    return caught[0]


ASKED = TokenReduction(locations=(0,), ratios=(0.75,))


@pytest.mark.parametrize("measure", list(MEASURES))
def test_mamba2_is_read_before_its_gate(measure: Any, networks: Any) -> None:
    network = networks["mamba2"]
    y = inputs_of(network, network.backbone.layers[0].mixer.norm, ids())
    want = {"clip": y.clamp(min=0).mean(-1), "mean": y.mean(-1), "l1": y.abs().mean(-1), "l2": (y * y).mean(-1) ** 0.5}
    got = scores_of(network, ASKED.but(measure=measure), ids())
    torch.testing.assert_close(got, want[measure], rtol=0, atol=1e-12)
    with double_precision(), fast(network):
        again = scores_of(network, ASKED.but(measure=measure), ids())
    torch.testing.assert_close(again, want[measure], rtol=0, atol=1e-9)


def test_mamba1_is_read_before_its_gate(networks: Any) -> None:
    network = networks["mamba"]
    mixer = network.backbone.layers[0].mixer
    gated = inputs_of(network, mixer.out_proj, ids())
    projected = mixer.in_proj(inputs_of(network, mixer.in_proj, ids()))
    gate = torch.nn.functional.silu(projected.chunk(2, -1)[1])
    got = scores_of(network, ASKED, ids())
    torch.testing.assert_close(got, (gated / gate).clamp(min=0).mean(-1), rtol=0, atol=1e-9)


def test_attention_is_what_transformers_weights_say(networks: Any) -> None:
    network = networks["llama"]
    before = network.config._attn_implementation
    network.set_attn_implementation("eager")
    try:
        with torch.no_grad(), double_precision():
            weights = network(ids(), use_cache=False, output_attentions=True).attentions[0]
    finally:
        network.set_attn_implementation(before)
    n = weights.shape[-1]
    assert n < QUERIES
    seen = torch.arange(n, 0, -1) * weights.shape[1]
    got = scores_of(network, ASKED, ids())
    torch.testing.assert_close(got, weights.sum((1, 2)) / seen, rtol=0, atol=1e-10)


def test_attention_of_long_prompts_is_sampled_to_the_last_query() -> None:
    g = torch.Generator().manual_seed(0)
    n = 3 * QUERIES
    q, k = (torch.randn(1, h, n, 4, generator=g, dtype=torch.float64) for h in (4, 2))
    rows = [(i + 1) * 3 - 1 for i in range(QUERIES)]
    total = torch.zeros(n, dtype=torch.float64)
    for head in range(4):
        for i in rows:
            weights = torch.softmax(q[0, head, i] @ k[0, head // 2, : i + 1].T * 0.5, -1)
            total[: i + 1] += weights
    seen = torch.tensor([4 * sum(i >= t for i in rows) for t in range(n)])
    torch.testing.assert_close(received(q, k, None, 0.5)[0], total / seen, rtol=0, atol=1e-12)
    assert bool((received(q, k, None, 0.5, queries=QUERIES)[0, QUERIES:] == 0).all())


def test_hybrids_offer_both_and_the_rest_falls_back_to_the_branch(networks: Any) -> None:
    network = networks["nemotron_h"]  # Mamba, MLP, attention, ...
    mlp = ASKED.but(locations=(1,))
    layer = network.model.layers[1]
    branch: list[Tensor] = []
    handle = layer.register_forward_hook(lambda m, args, out: branch.append(out - args[0]))
    with torch.no_grad(), double_precision():
        network(ids(), use_cache=False)
    handle.remove()
    torch.testing.assert_close(scores_of(network, mlp, ids()), branch[0].clamp(min=0).mean(-1), rtol=0, atol=1e-12)
    attention = scores_of(network, ASKED.but(locations=(2,), importance="attention"), ids())
    assert bool((attention >= 0).all()) and not torch.allclose(attention, attention[:, :1])
    with pytest.raises(UsageError, match="'scan'"):
        scores_of(network, ASKED.but(locations=(2,), importance="scan"), ids())


def test_a_watcher_that_was_replaced_is_noticed(networks: Any) -> None:
    network = networks["mamba2"]
    with (
        torch.no_grad(), double_precision(), pytest.raises(SecateurError, match="inside fast"),
        reduce_tokens(network, ASKED), fast(network),
    ):  # fmt: skip
        network(ids(), use_cache=False)
