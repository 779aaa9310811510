"""Token reduction around a loaded transformers model, for the length of a ``with`` block.

    with reduce_tokens(model, flops=0.8) as reducing:
        model.generate(**inputs)           # or a forward pass; reducing.positions: who survived the last prompt

A *prompt* is a forward pass over more than one token on an empty cache or none. Behind every location of the schedule
the stream loses tokens, and the layers after it, their caches included, see the survivors alone, at their own
positions. What follows on that cache - decoded tokens, a second turn - is never reduced, and continues exactly as if
every layer had been given the reduced sequence (:mod:`secateur.tokens.keys`). Logits come back for the survivors;
``labels`` are matched to them, each survivor answering for the token that really followed it.

The rows of a padded batch lose what each would lose alone; the ratios are those of the longest. Padding inside what is
appended to a cache is not looked at. No gradient flows through a location.

One hook stands before and one behind the base model and every decoder layer; scans and attention of reduction layers
are watched by :mod:`secateur.tokens.importance`. No class of transformers is touched, the model is as before when the
block ends, also by an exception. Attention must be eager or sdpa, caches dynamic.

A decoder layer is one residual block here: its branch is output - input. That holds for every family; where a layer
holds two sub-blocks (mixer and feed-forward), the branch is what both add.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.importance.whole import decoder_layers
from secateur.tokens import batch
from secateur.tokens.choice import Options
from secateur.tokens.cost import costs, described
from secateur.tokens.importance import Reading, reading
from secateur.tokens.keys import Held, is_fresh, mask
from secateur.tokens.labels import answering
from secateur.tokens.methods import METHODS
from secateur.tokens.narrow import narrowed
from secateur.tokens.schedule import Schedule, locations_of, share, solve
from secateur.tokens.settings import TokenReduction

_ATTENTION = ("eager", "sdpa")
#: Names of the mask of attention in a layer's signature, best first: in Zamba2 the second one is a padding mask.
_MASKS = ("causal_mask", "attention_mask")


class Pass:
    """One forward pass over a prompt: ``tokens`` T columns of which ``alive`` (b, n) are left, None: all of them."""

    def __init__(self, hidden: Tensor, padding: Tensor | None, prompt: int | None, schedule: Schedule) -> None:
        self.tokens, self.rows = hidden.shape[1], hidden.shape[0]
        self.padding = padding
        self.prompt = self.tokens if prompt is None else min(prompt, self.tokens)
        self.ratio = {i: r for i, r in zip(schedule.locations, schedule.ratios, strict=True) if r < 1}
        self.schedule = schedule
        self.alive: Tensor | None = None

    def columns(self, device: torch.device) -> Tensor:
        """Positions (b, n) of the tokens that are left."""
        if self.alive is not None:
            return self.alive
        return torch.arange(self.tokens, device=device).expand(self.rows, -1)

    def drop(self, kept: Tensor) -> None:
        """Keep the columns ``kept`` (b, n') of those that are left."""
        self.alive = self.columns(kept.device).gather(1, kept)


class Reducing:
    """A model whose prompts are reduced; what ``reduce_tokens`` hands out."""

    def __init__(self, network: Any, asked: TokenReduction, prompt: int | None) -> None:
        self.asked, self.prompt, self.method = asked, prompt, METHODS[asked.method]
        self.costs = costs(described(network))
        self.locations = locations_of(self.costs, asked)
        self.network = network
        self.layers = decoder_layers(network, len(self.costs.layers))
        # OPT's causal model does not call its base model, but the decoder inside
        self.base = next(m for m in network.modules() if any(child is self.layers for child in m.children()))
        self.last: Pass | None = None
        self._schedules: dict[int, Schedule] = {}
        self._held: WeakKeyDictionary[Any, Held] = WeakKeyDictionary()
        self._readings: dict[int, Reading] = {}
        self._pass: Pass | None = None
        self._padding: Tensor | None = None
        self._current: Held | None = None
        self._new = 0

    @property
    def positions(self) -> Tensor | None:
        """Positions (b, n) that survived the last prompt; None before the first, or when nothing was removed."""
        return None if self.last is None else self.last.alive

    def schedule(self, tokens: int) -> Schedule:
        """What a prompt of so many tokens is reduced by."""
        if tokens not in self._schedules:
            short = tokens < self.asked.shortest
            asked = self.asked.but(flops=1.0, ratios=(), strengths=()) if short else self.asked
            self._schedules[tokens] = solve(self.costs, asked, tokens, matches=self.method.matches)
        return self._schedules[tokens]

    def share(self, tokens: int) -> float:
        """Operations left of a prompt of so many tokens, as counted."""
        return share(self.costs, self.schedule(tokens), tokens, matches=self.method.matches)

    # ---- hooks ------------------------------------------------------------------------------------------------

    def attach(self, stack: ExitStack) -> None:
        """Put the hooks in place until ``stack`` unwinds."""
        for i in self.locations if self.method.scores else ():
            self._readings[i] = stack.enter_context(reading(self.layers[i], self.asked.measure))

        def hook(handle: Any) -> None:
            stack.callback(handle.remove)

        if self.network is not self.base:
            answering(self, hook)
        hook(self.base.register_forward_pre_hook(self._before, with_kwargs=True))
        hook(self.base.register_forward_hook(self._behind))
        for i, layer in enumerate(self.layers):
            hook(layer.register_forward_pre_hook(self._entering(i, layer), with_kwargs=True))
            if i in self.locations:
                hook(layer.register_forward_hook(self._leaving(i), with_kwargs=True))
        hook(self.layers[-1].register_forward_hook(self._ending))

    def _before(self, base: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Take the padding mask; give a continuation the positions it really has."""
        self._pass = self._current = None
        signature = inspect.signature(base.forward)
        given = signature.bind_partial(*args, **kwargs).arguments if args else kwargs
        attention_mask = given.get("attention_mask")
        self._padding = None
        if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2 and not bool(attention_mask.all()):
            self._padding = attention_mask == 0
        held = self._known(_cache(given))
        takes = "position_ids" in signature.parameters
        if held is None or not takes or given.get("position_ids") is not None:
            return None
        ids: Tensor = given["inputs_embeds"] if given.get("input_ids") is None else given["input_ids"]
        new = torch.arange(held.seen, held.seen + ids.shape[1], device=ids.device)
        return args, {**kwargs, "position_ids": new[None]}

    def _behind(self, base: Any, args: Any, out: Any) -> Any:
        run, held, self._pass, self._current = self._pass, self._current, None, None
        if held is not None:
            held.seen += self._new
        if run is None:
            return None
        self.last = run
        if run.alive is None:
            return None
        if isinstance(out, tuple):
            return (narrowed(out[0], run.alive, run.tokens), *out[1:])
        out.last_hidden_state = narrowed(out.last_hidden_state, run.alive, run.tokens)
        return out

    def _ending(self, layer: nn.Module, args: Any, out: Any) -> Any:
        """Back to T columns behind the last layer, zeros for who is gone: GPT-2 restores its input's shape there."""
        run = self._pass
        if run is None or run.alive is None:
            return None
        stream = out[0] if isinstance(out, tuple) else out
        whole = stream.new_zeros(run.rows, run.tokens, stream.shape[-1])
        whole.scatter_(1, run.alive[..., None].expand_as(stream), stream)
        return (whole, *out[1:]) if isinstance(out, tuple) else whole

    def _known(self, cache: Any) -> Held | None:
        """What a cache was fed by a reduced prompt, unless it was emptied since."""
        return None if cache is None or is_fresh(cache) else self._held.get(cache)

    def _entering(self, i: int, layer: nn.Module) -> Any:
        names = list(inspect.signature(layer.forward).parameters)

        def entering(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            if i in self._readings:
                self._readings[i].active = False
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            if i == 0:
                self._begin(hidden, _cache(given))
            if self._pass is not None:
                return self._prompt(i, args, kwargs)
            if self._current is not None:
                return self._continue(i, names, hidden, args, kwargs, given)
            return None

        return entering

    def _begin(self, hidden: Tensor, cache: Any) -> None:
        """A new pass: over a prompt, or on a cache that a reduced prompt left."""
        self._current, self._new = self._known(cache), hidden.shape[1]
        if self._current is not None:
            return
        if hidden.shape[1] < 2 or (cache is not None and not is_fresh(cache)):
            return
        padding = None if self._padding is None else self._padding[:, -hidden.shape[1] :]
        longest = hidden.shape[1] if padding is None else int((~padding).sum(1).max())
        size = longest if self.prompt is None else min(self.prompt, longest)
        self._pass = Pass(hidden, padding, self.prompt, self.schedule(size))
        if cache is not None and self._pass.ratio:
            _check_cache(cache)
            self._held[cache] = Held(hidden.shape[1], hidden.shape[1], padding=padding)

    def _prompt(self, i: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run = self._pass
        assert run is not None
        if i in self._readings:
            seen = self._readings[i]
            seen.found.clear()
            seen.active = i in run.ratio
            seen.queries = run.columns(torch.device("cpu")).shape[1] - (run.tokens - run.prompt)
        if run.alive is None:
            return None
        cache = _cache({**dict(enumerate(args)), **kwargs})
        if cache is not None:
            self._held[cache].fed[i] = run.alive
        return tuple(narrowed(v, run.alive, run.tokens) for v in args), {
            k: narrowed(v, run.alive, run.tokens) for k, v in kwargs.items()
        }

    def _continue(
        self, i: int, names: list[str], hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], given: Any
    ) -> Any:
        """Give an attention layer the mask of what its own cache holds."""
        held, cache = self._current, _cache(given)
        if held is None or cache is None or i >= len(cache.layers) or not hasattr(cache.layers[i], "update"):
            return None
        if getattr(cache.layers[i], "keys", None) is None:
            return None
        name = next(n for n in _MASKS if n in names)
        made = mask(held, i, cache.layers[i], hidden)
        at = names.index(name)
        if at < len(args):
            return (*args[:at], made, *args[at + 1 :]), kwargs
        return args, {**kwargs, name: made}

    def _leaving(self, i: int) -> Any:
        def leaving(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
            run = self._pass
            if run is None or i not in run.ratio:
                return None
            residual = args[0] if args else kwargs["hidden_states"]
            output = out[0] if isinstance(out, tuple) else out
            stream = self._reduce(i, run, residual, output)
            return (stream, *out[1:]) if isinstance(out, tuple) else stream

        return leaving

    @torch.no_grad()
    def _choose(self, i: int, run: Pass, residual: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        columns = run.columns(output.device)
        padding = torch.zeros_like(columns, dtype=torch.bool)
        if run.padding is not None:
            padding = run.padding.to(output.device).gather(1, columns)
        candidates = (columns < run.prompt) & ~padding
        scores = None
        if i in self._readings:
            wide = torch.promote_types(output.dtype, torch.float32)
            scores = self._readings[i].take(self.asked.importance, lambda: output.to(wide) - residual.to(wide))
        options = Options(self.asked.prune, self.asked.causal, self.asked.seed * 10_007 + i)
        return batch.location(self.method, run.ratio[i], options, residual, output, scores, candidates, padding)

    def _reduce(self, i: int, run: Pass, residual: Tensor, output: Tensor) -> Tensor:
        stream, kept = self._choose(i, run, residual, output)
        run.drop(kept)
        return stream


def _cache(given: Any) -> Any:
    """The cache among a call's arguments, by its class."""
    from transformers.cache_utils import Cache

    return next((v for v in given.values() if isinstance(v, Cache)), None)


def _check_cache(cache: Any) -> None:
    from transformers.cache_utils import StaticLayer

    if any(isinstance(layer, StaticLayer) for layer in cache.layers):
        raise UsageError(
            "token reduction needs a cache that grows; this one has a fixed size",
            hint='leave cache_implementation out, or pass "dynamic"',
        )


@contextmanager
def reduce_tokens(network: Any, asked: TokenReduction, *, prompt: int | None = None) -> Iterator[Reducing]:
    """Reduce the prompts that ``network``, a loaded transformers causal model, reads inside the block.

    ``prompt``: only the first so many tokens of every pass count as prompt, the others are never removed: a reduced
    prompt and what follows it in one pass, without a cache. Raises UsageError for locations the model does not have, a
    share it cannot reach, caches of fixed size, and attention that is neither eager nor sdpa.
    """
    kind = getattr(network.config, "_attn_implementation", None)
    if kind not in (None, *_ATTENTION):
        raise UsageError(
            f"token reduction with {kind} attention: its masks are not known",
            hint="load the model with attn_implementation='sdpa'",
        )
    reducing = Reducing(network, asked, prompt)
    with ExitStack() as stack:
        reducing.attach(stack)
        yield reducing


__all__ = ["Pass", "Reducing", "reduce_tokens"]
