"""The wrapper around whole models of many families, in float64."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache

import secateur
from secateur.errors import UsageError
from secateur.tokens.choice import Row, kept
from secateur.tokens.importance import MEASURES
from secateur.tokens.runtime import reduce_tokens
from secateur.tokens.settings import TokenReduction
from tests.contract.harness import Parent, double_precision
from tests.contract.rows import ROWS, VOCAB
from tests.tokens import plain
from tests.tokens.test_importance import inputs_of

#: One of every kind: plain, windowed, learned positions, both Mambas, delta rule, RG-LRU, hybrids, shared, experts.
FAMILIES = (
    "llama", "gemma3_text", "gpt_oss", "gpt2", "opt", "mamba", "mamba2", "nemotron_h", "zamba2", "falcon_h1", "jamba",
    "granitemoehybrid", "qwen3_next", "kimi_linear", "lfm2", "recurrent_gemma",
)  # fmt: skip
#: Several tokens on a cache start from an empty state in transformers' Mamba-1 scans and in RecurrentGemma.
ONE_BY_ONE = ("mamba", "jamba", "recurrent_gemma")
PROMPT, MORE = 24, 6


def ids(n: int = PROMPT + MORE, rows: int = 2, seed: int = 3) -> Tensor:
    return torch.randint(3, VOCAB, (rows, n), generator=torch.Generator().manual_seed(seed))


def asked_of(name: str, parents: dict[str, Parent], **fields: Any) -> TokenReduction:
    """Behind the first and the last layer but one."""
    places = tuple(sorted({0, parents[name].anatomy.n_layers - 2}))
    return TokenReduction(locations=places, ratios=(0.75,) * len(places), **fields)


@torch.no_grad()
def logits(network: Any, tokens: Tensor, **given: Any) -> Tensor:
    with double_precision():
        found: Tensor = network(tokens, use_cache=False, **given).logits
    return found


class Chat:
    """A model with its cache, handed on from call to call as its class wants it."""

    def __init__(self, network: Any) -> None:
        self.network = network
        takes = inspect.signature(network.forward).parameters
        self.name = "past_key_values" if "past_key_values" in takes else "cache_params"
        # given from outside, because RecurrentGemma does not hand its cache back
        self.state = DynamicCache(config=network.config)

    @torch.no_grad()
    def __call__(self, tokens: Tensor, **given: Any) -> Tensor:
        with double_precision():
            out = self.network(tokens, use_cache=True, **{self.name: self.state}, **given)
        found: Tensor = out.logits
        return found


def close(got: Tensor, want: Tensor, tolerance: float = 1e-9) -> None:
    assert got.shape == want.shape
    assert float((got - want).abs().max() / want.std()) < tolerance


@pytest.mark.parametrize("name", FAMILIES)
def test_everything_kept_is_the_model_bit_for_bit(name: str, networks: Any, parents: dict[str, Parent]) -> None:
    network, asked = networks[name], asked_of(name, parents)
    before = logits(network, ids())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
    with reduce_tokens(network, asked.but(ratios=(1.0,) * len(asked.ratios))):
        assert torch.equal(logits(network, ids()), before)
    with reduce_tokens(network, asked):
        assert logits(network, ids()).shape[1] < ids().shape[1]
    with pytest.raises(ZeroDivisionError), reduce_tokens(network, asked):
        logits(network, ids())
        raise ZeroDivisionError
    assert torch.equal(logits(network, ids()), before)
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
    assert not any("forward" in vars(m) for m in network.modules())


@pytest.mark.parametrize("method", ["utrc", "stride"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_cache_goes_on_as_if_the_reduced_sequence_had_been_given(
    name: str, method: Any, networks: Any, parents: dict[str, Parent]
) -> None:
    """A reduced prompt, then two tokens at once, then one by one, against one pass without a cache."""
    network, asked = networks[name], asked_of(name, parents, method=method)
    with reduce_tokens(network, asked, prompt=PROMPT) as reducing:
        whole = logits(network, ids())
        survivors = reducing.positions
    assert survivors is not None and whole.shape[1] == survivors.shape[1]
    with reduce_tokens(network, asked) as reducing:
        chat = Chat(network)
        parts = [chat(ids()[:, :PROMPT])]
        assert reducing.positions is not None
        assert torch.equal(reducing.positions, survivors[:, : parts[0].shape[1]])
        steps = [1] * MORE if name in ONE_BY_ONE else [2] + [1] * (MORE - 2)
        at = PROMPT
        for step in steps:
            parts.append(chat(ids()[:, at : at + step]))
            at += step
    close(torch.cat(parts, 1), whole)


def by_hand(network: Any, layers: Any, call: Callable[..., Tensor], drop: dict[int, list[int]], tokens: Tensor) -> Any:
    """The layers one after the other, losing the listed positions on the way: no hook, no mask, no cache."""
    at = torch.arange(tokens.shape[1])
    hidden = network.get_input_embeddings()(tokens)
    for i, layer in enumerate(layers):
        hidden = call(layer, hidden, at)
        keep = torch.tensor([k for k, p in enumerate(at.tolist()) if p not in drop.get(i, [])])
        hidden, at = hidden[:, keep], at[keep]
    return hidden, at


def _llama(network: Any) -> Callable[..., Tensor]:
    return lambda layer, h, at: layer(h, position_embeddings=network.model.rotary_emb(h, at[None]))


PLAIN: dict[str, Any] = {
    "llama": (_llama, lambda n: n.model.layers, lambda n: n.model.norm),
    "mamba2": (lambda n: lambda layer, h, at: layer(h), lambda n: n.backbone.layers, lambda n: n.backbone.norm_f),
    "nemotron_h": (lambda n: lambda layer, h, at: layer(h), lambda n: n.model.layers, lambda n: n.model.norm_f),
}


@pytest.mark.parametrize("name", list(PLAIN))
def test_survivors_and_what_follows_are_those_of_a_plain_loop(
    name: str, networks: Any, parents: dict[str, Parent]
) -> None:
    network, asked = networks[name], asked_of(name, parents, method="stride")
    call, layers, norm = PLAIN[name]
    first = [(2 * i + 1) * (PROMPT - 1) // 12 for i in range(6)]
    left = [p for p in range(PROMPT) if p not in first]
    second = [left[(2 * i + 1) * 17 // 8] for i in range(4)] if len(asked.locations) == 2 else []
    drop = dict(zip(asked.locations, (first, second), strict=False))
    with torch.no_grad(), double_precision():
        hidden, at = by_hand(network, layers(network), call(network), drop, ids())
        want = network.lm_head(norm(network)(hidden))
    with reduce_tokens(network, asked, prompt=PROMPT) as reducing:
        close(logits(network, ids()), want)
        assert reducing.positions is not None
        assert reducing.positions.tolist() == [at.tolist()] * 2
    with reduce_tokens(network, asked):
        chat = Chat(network)
        chat(ids()[:, :PROMPT])
        parts = [chat(ids()[:, i : i + 1]) for i in range(PROMPT, PROMPT + MORE)]
    close(torch.cat(parts, 1), want[:, -MORE:])


@torch.no_grad()
def test_utrc_in_a_model_is_the_plain_form_on_its_streams(networks: Any) -> None:
    """Streams and scan read by hooks of our own from a full pass; what the next layer gets, from a reduced one."""
    network = networks["mamba2"]
    layers = network.backbone.layers
    residual = inputs_of(network, layers[1], ids())
    output = inputs_of(network, layers[2], ids())
    y = inputs_of(network, layers[1].mixer.norm, ids())
    asked = TokenReduction(locations=(1,), ratios=(0.6,))
    with reduce_tokens(network, asked) as reducing:
        got = inputs_of(network, layers[2], ids())
    for i in range(2):
        row = Row(MEASURES["clip"](y[i]), output[i] - residual[i])
        gone = plain.utrc(row, len(y[i]) - kept(len(y[i]), 0.6))
        close(got[i], plain.stream(residual[i], output[i], gone), 1e-10)
        assert reducing.positions is not None
        assert sorted({*reducing.positions[i].tolist(), *(p for p, _, _ in gone)}) == list(range(len(y[i])))
        assert reducing.positions[i].tolist() == sorted(reducing.positions[i].tolist())


#: Without biases in in_proj: transformers lets those of padding into the convolutions of Mamba.
PADDED = (
    "llama",
    "gemma3_text",
    "gpt2",
    "mamba@plain",
    "mamba2@tied",
    "nemotron_h",
    "zamba2",
    "falcon_h1",
    "qwen3_next",
)


@pytest.mark.parametrize("method", ["utrc", "pumer"])
@pytest.mark.parametrize("name", PADDED)
def test_a_padded_row_is_reduced_as_it_is_alone(
    name: str, method: Any, networks: Any, parents: dict[str, Parent]
) -> None:
    """Left padding, prompt and continuation through the cache; the longer row sets the length."""
    network, asked = networks[name], asked_of(name, parents, method=method)
    short, long = PROMPT - 7, PROMPT
    tokens = ids()
    tokens[0, : long - short] = 2
    mask = torch.ones_like(tokens)
    mask[0, : long - short] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0)
    takes = "position_ids" in inspect.signature(network.forward).parameters

    def run(rows: slice, start: int) -> list[Tensor]:
        def at(piece: slice) -> dict[str, Tensor]:
            return {"position_ids": places[rows, piece]} if takes else {}

        with reduce_tokens(network, asked):
            chat, prompt = Chat(network), slice(start, long)
            given = mask[rows, start:]
            parts = [chat(tokens[rows, prompt], attention_mask=given[:, : long - start], **at(prompt))]
            for i in range(long, tokens.shape[1]):
                one = slice(i, i + 1)
                seen = {"attention_mask": given[:, : i + 1 - start]} if takes else {}  # as generate() does
                parts.append(chat(tokens[rows, one], **seen, **at(one)))
        return parts

    both = run(slice(0, 2), 0)
    for row, start in ((0, long - short), (1, 0)):
        alone = run(slice(row, row + 1), start)
        close(both[0][row : row + 1, -1:], alone[0][:, -1:])
        kept_alone = alone[0].shape[1]
        close(both[0][row : row + 1, -kept_alone:], alone[0])
        for got, want in zip(both[1:], alone[1:], strict=True):
            close(got[row : row + 1], want)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["llama", "nemotron_h", "zamba2"])
def test_generate_says_what_decoding_by_hand_says(
    name: str, attention: str, networks: Any, parents: dict[str, Parent]
) -> None:
    network, asked = networks[name], asked_of(name, parents)
    before = network.config._attn_implementation
    network.set_attn_implementation(attention)
    tokens = ids(PROMPT)
    try:
        with double_precision(), reduce_tokens(network, asked):
            chat, want = Chat(network), []
            token = chat(tokens)[:, -1:].argmax(-1)
            for _ in range(5):
                want.append(token)
                token = chat(token)[:, -1:].argmax(-1)
            got = network.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=5, do_sample=False, eos_token_id=None
            )
    finally:
        network.set_attn_implementation(before)
    assert torch.equal(got[:, PROMPT:], torch.cat(want, 1))


def test_labels_are_those_of_the_survivors(networks: Any, parents: dict[str, Parent]) -> None:
    network, tokens = networks["nemotron_h"], ids()
    with torch.no_grad(), double_precision(), reduce_tokens(network, asked_of("nemotron_h", parents)) as reducing:
        out = network(tokens, use_cache=False, labels=tokens)
    assert reducing.positions is not None
    log_p, total, count = out.logits.log_softmax(-1), 0.0, 0
    for row in range(2):
        for k, p in enumerate(reducing.positions[row].tolist()):
            if p + 1 < tokens.shape[1]:
                total -= float(log_p[row, k, tokens[row, p + 1]])
                count += 1
    assert float(out.loss) == pytest.approx(total / count, abs=1e-9)


def test_bfloat16_and_short_prompts(networks: Any, parents: dict[str, Parent]) -> None:
    import copy

    network = copy.deepcopy(networks["nemotron_h"]).to(torch.bfloat16)
    with torch.no_grad(), secateur.reduce_tokens(network, asked_of("nemotron_h", parents)) as reducing:
        found = network(ids(), use_cache=False).logits
        assert found.shape[1] == reducing.positions.shape[1] < PROMPT + MORE and bool(found.isfinite().all())
    with torch.no_grad(), secateur.reduce_tokens(network, flops=0.8, method="stride", shortest=99) as reducing:
        assert network(ids(), use_cache=False).logits.shape[1] == PROMPT + MORE
        assert reducing.positions is None and reducing.share(30) == 1.0


def test_planted_zeros_are_first_to_go(networks: Any) -> None:
    """Positions whose scan is silenced go before all others, in every row."""
    network, planted = networks["mamba2"], torch.tensor([2, 3, 9, 14, 20])
    plain_measure = MEASURES["clip"]

    def silenced(y: Tensor) -> Tensor:
        score = plain_measure(y)
        score[:, planted] = 0
        return score

    MEASURES["clip"] = silenced
    try:
        asked = TokenReduction(locations=(0,), ratios=(1 - 5 / 30,), method="importance")
        with reduce_tokens(network, asked) as reducing:
            logits(network, ids())
    finally:
        MEASURES["clip"] = plain_measure
    assert reducing.positions is not None
    for row in reducing.positions.tolist():
        assert sorted(set(range(30)) - set(row)) == planted.tolist()


def test_what_cannot_work_is_refused(networks: Any) -> None:
    network = networks["llama"]
    last = len(network.model.layers) - 1
    with (
        pytest.raises(UsageError, match="locations up to"),
        secateur.reduce_tokens(network, locations=(last,), ratios=(0.9,)),
    ):
        pass
    with pytest.raises(UsageError, match="one of them"):
        secateur.reduce_tokens(network, TokenReduction(flops=0.9), flops=0.8)
    cached = secateur.reduce_tokens(network, locations=(0,), ratios=(0.9,))
    with torch.no_grad(), double_precision(), cached, pytest.raises(UsageError, match="dynamic"):
        network(ids(), past_key_values=StaticCache(config=network.config, max_cache_len=64))
    before = network.config._attn_implementation
    network.config._attn_implementation = "flex_attention"
    try:
        with pytest.raises(UsageError, match="sdpa"), secateur.reduce_tokens(network, flops=0.9):
            pass
    finally:
        network.config._attn_implementation = before


def test_every_family_of_the_contract_has_an_anatomy_from_its_own_config(networks: Any) -> None:
    """described() reads the config of a loaded model; rows that differ only in fields are not repeated."""
    from secateur.tokens.cost import costs, described

    for name in FAMILIES:
        found = costs(described(networks[name]))
        assert len(found.layers) >= 2 and all(layer.per_token > 0 for layer in found.layers)
    assert set(FAMILIES) <= set(ROWS)
