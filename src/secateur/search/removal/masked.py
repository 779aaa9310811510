"""A model in memory without some of its units: how far it is from the whole one, and what it costs in loss.

    kl     mean over tokens of KL(whole || without)                nats
    nll    mean next-token loss, a sequence's as much as another's, minus that of the whole model: the logarithm of the
           ratio of the perplexities
    mse    mean over tokens and vocabulary of (logits - logits of the whole model)^2

What a *base* (the units that are gone already) sends into each layer is kept per batch of text. A trial shares it up to
the first layer where it differs from its base, and only what follows is computed: in a greedy step half of the work on
average. The model's own loop runs; layers before that point just hand out what was kept. Numbers of a trial are
remembered. Memory: the model, and the kept states within ``room`` bytes (beyond it every s-th layer's only).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from secateur.calibration.stats import check_windows
from secateur.errors import UsageError
from secateur.importance.whole import decoder_layers, load_whole
from secateur.kernels import fast
from secateur.model import Model
from secateur.pruning.removed import LAYER, Unit, canonical, check_unit
from secateur.search.removal.journal import Journal
from secateur.search.removal.places import NOTHING, Removal
from secateur.search.removal.silent import answering, removed

Measure = Literal["kl", "nll", "mse"]
MEASURES: tuple[Measure, ...] = ("kl", "nll", "mse")
ROOM = 1 << 30


@dataclass
class _Kept:
    """``states[k]``: the stream into layer k of the model without ``base``; k = layers: behind the last."""

    base: Removal
    states: dict[int, Tensor] = field(default_factory=dict)


class _StopError(Exception):
    """Ends a forward pass behind the layer that is asked for."""


class Masked:
    """``windows`` (samples, tokens) int64; ``batch`` of them are run together and are one batch below. ``whole``: the
    model where it is in memory already."""

    def __init__(
        self,
        model: Model,
        windows: Tensor,
        *,
        batch: int = 2,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        room: int = ROOM,
        whole: Any = None,
    ) -> None:
        check_windows(model, windows)
        self.model, self.anatomy = model, model.anatomy
        self.whole = load_whole(model, dtype=dtype, device=device) if whole is None else whole
        self.layers = decoder_layers(self.whole, self.anatomy.n_layers)
        self.batches = [b.to(device) for b in torch.split(windows, batch)]
        state = windows.numel() * self.anatomy.sizes["d"] * torch.finfo(dtype).bits // 8
        self.stride = max(1, -(-state * (self.anatomy.n_layers + 1) // room))
        self.layers_run = 0
        self._fewest: dict[Removal, Removal] = {}
        #: What each layer's class returns: 0 for a tensor, else the length of its tuple.
        self.arity: dict[int, int] = {}
        self._kept: dict[int, _Kept] = {}
        self._final: dict[int, Tensor] = {}
        self._known: dict[tuple[int, Removal], Tensor] = {}
        #: Where measurements are written down, and earlier ones found.
        self.journal: Journal | None = None

    def removal(self, units: Collection[Unit]) -> Removal:
        """``units`` checked, in their fewest."""
        given = frozenset(units)
        if given not in self._fewest:
            for unit in given:
                check_unit(unit, self.anatomy)
            self._fewest[given] = canonical(given, self.anatomy)
        return self._fewest[given]

    @torch.no_grad()
    def costs(
        self,
        trials: Sequence[Collection[Unit]],
        *,
        base: Collection[Unit] = (),
        batches: Sequence[int] | None = None,
        advance: Callable[[], None] = lambda: None,
    ) -> dict[Measure, Tensor]:
        """Per trial and measure the mean over the text (or over some batches of it); shape (trials,), float64.

        ``base``: what most of the trials have in common; changes the time only. ``advance`` is called per trial and
        batch.
        """
        chosen = range(len(self.batches)) if batches is None else batches
        wanted, shared = [self.removal(t) for t in trials], self.removal(base)
        weights = torch.tensor([len(self.batches[b]) for b in chosen], dtype=torch.float64)
        found = torch.zeros(len(chosen), len(wanted), len(MEASURES), dtype=torch.float64)
        with fast(self.whole):
            for row, b in enumerate(chosen):
                reference: Reference | None = None
                for column, trial in enumerate(wanted):
                    known = self._recall(b, trial)
                    if known is None:
                        self._rebase(b, shared)
                        reference = self.reference(b) if reference is None else reference
                        known = self._keep(b, trial, reference.measures(self._logits(b, trial)))
                    found[row, column] = known
                    advance()
        means = (weights[:, None, None] * found).sum(0) / weights.sum()
        return {name: means[:, i] for i, name in enumerate(MEASURES)}

    @torch.no_grad()
    def influence(self, units: Sequence[Unit], advance: Callable[[], None] = lambda: None) -> Tensor:
        """Per unit 1 - mean over tokens of cos(its layer's output without it, with it); shape (units,), float64.

        For a whole layer that is block influence (ShortGPT, arXiv 2403.03853).
        """
        turned = torch.zeros(len(units), dtype=torch.float64)
        with fast(self.whole):
            for b in range(len(self.batches)):
                self._rebase(b, NOTHING)
                whole = {layer: self.after(b, layer, NOTHING) for layer in sorted({u.layer for u in units})}
                for i, unit in enumerate(units):
                    without = self.after(b, unit.layer, self.removal([unit]))
                    turned[i] += (1 - _cosine(without, whole[unit.layer])).sum()
                    advance()
        return turned / sum(b.numel() for b in self.batches)

    @torch.no_grad()
    def after(self, b: int, layer: int, trial: Removal) -> Tensor:
        """The stream behind ``layer`` of the model without ``trial``; shape (samples, tokens, hidden)."""
        self._rebase(b, NOTHING if b not in self._kept else self._kept[b].base)
        seen: list[Tensor] = []

        def stop(module: nn.Module, args: Any, out: Any) -> None:
            seen.append(out[0] if isinstance(out, tuple) else out)
            raise _StopError

        with self._from_kept(b, trial, layer):
            handle = self.layers[layer].register_forward_hook(stop)
            try:
                with contextlib.suppress(_StopError):
                    self.whole(self.batches[b], use_cache=False)
            finally:
                handle.remove()
        return seen[0]

    def streams(self, b: int) -> list[Tensor]:
        """The stream of the whole model into every layer, and behind the last."""
        return [self._into(b, k) for k in range(self.anatomy.n_layers + 1)]

    def _into(self, b: int, layer: int) -> Tensor:
        self._rebase(b, NOTHING)
        kept = self._kept[b].states
        return kept[layer] if layer in kept else self.after(b, layer - 1, NOTHING)

    def _recall(self, b: int, trial: Removal) -> Tensor | None:
        earlier = {} if self.journal is None else self.journal.known
        return self._known.get((b, trial), earlier.get((b, trial)))

    def _keep(self, b: int, trial: Removal, costs: Tensor) -> Tensor:
        self._known[b, trial] = costs
        if self.journal is not None:
            self.journal.add(b, trial, costs)
        return costs

    # ---- kept states ------------------------------------------------------------------------------------------

    def _rebase(self, b: int, base: Removal) -> None:
        """Keep what ``base`` sends into the layers, starting from what was kept of another base."""
        if b not in self._kept:
            self._kept[b] = _Kept(NOTHING)
            self._record(b, NOTHING, whole=True)
            self._final[b] = self._kept[b].states[self.anatomy.n_layers]
        if self._kept[b].base != base:
            self._record(b, base)

    @torch.no_grad()
    def _record(self, b: int, base: Removal, *, whole: bool = False) -> None:
        kept, n = self._kept[b], self.anatomy.n_layers
        fresh: dict[int, Tensor] = {}

        def into(k: int) -> Any:
            def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
                if k % self.stride == 0:
                    fresh[k] = args[0] if args else kwargs["hidden_states"]

            return hook

        def behind(module: nn.Module, args: Any, out: Any) -> None:
            fresh[n] = out[0] if isinstance(out, tuple) else out

        start = 0 if whole else self._start(b, base, n - 1)[0]
        handles = [self.layers[k].register_forward_pre_hook(into(k), with_kwargs=True) for k in range(start, n)]
        handles.append(self.layers[n - 1].register_forward_hook(behind))
        handles += [m.register_forward_hook(self._note(k)) for k, m in enumerate(self.layers) if whole]
        try:
            if whole:
                self.layers_run += n
                self.whole(self.batches[b], use_cache=False)
            else:
                with self._from_kept(b, base, n - 1):
                    self.whole(self.batches[b], use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        kept.states = {k: v for k, v in kept.states.items() if k < start} | fresh
        kept.base = base

    def _note(self, layer: int) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            self.arity[layer] = len(out) if isinstance(out, tuple) else 0

        return hook

    def _start(self, b: int, trial: Removal, last: int) -> tuple[int, Tensor | None]:
        """(the layer from which a trial must be computed to see what comes out of ``last``, the stream into it)."""
        kept = self._kept[b]
        first = min((u.layer for u in kept.base ^ trial), default=self.anatomy.n_layers)
        at = max((k for k in kept.states if k <= min(first, last + 1)), default=0)
        return (at, kept.states[at]) if at else (0, None)

    @contextlib.contextmanager
    def _from_kept(self, b: int, trial: Removal, last: int) -> Iterator[None]:
        """The model without ``trial``, its first layers handing out what is kept, for a look behind ``last``."""
        start, states = self._start(b, trial, last)
        gone = {u.layer for u in trial if u.part == LAYER}
        self.layers_run += sum(k not in gone for k in range(start, last + 1))
        gone_from_there = removed(self.layers, self.anatomy, [u for u in trial if u.layer >= start], self.arity)
        with gone_from_there, _resumed(self.layers, start, states, self.arity):
            yield

    # ---- measures ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def reference(self, b: int) -> Reference:
        """What the whole model says of batch ``b``: only the head runs."""
        if b not in self._final:
            with fast(self.whole):
                self._rebase(b, NOTHING)
        with _resumed(self.layers, self.anatomy.n_layers, self._final[b], self.arity):
            return Reference(self.whole(self.batches[b], use_cache=False).logits.float(), self.batches[b])

    @torch.no_grad()
    def logits(self, b: int, units: Collection[Unit]) -> Tensor:
        """Logits of the model without ``units`` on batch ``b``, (samples, tokens, vocab) float32."""
        with fast(self.whole):
            if b not in self._kept:
                self._rebase(b, NOTHING)
            return self._logits(b, self.removal(units))

    def _logits(self, b: int, trial: Removal) -> Tensor:
        with self._from_kept(b, trial, self.anatomy.n_layers - 1):
            logits: Tensor = self.whole(self.batches[b], use_cache=False).logits.float()
        return logits


class Reference:
    """What the whole model says of one batch: ``logits`` (samples, tokens, vocab) and ``ids`` (samples, tokens)."""

    def __init__(self, logits: Tensor, ids: Tensor) -> None:
        self.logits, self.ids = logits, ids
        logp = logits.log_softmax(-1)
        self.p, self.loss = logp.exp(), _nll(logp, ids)
        self.certainty = torch.linalg.vecdot(self.p, logp)

    def measures(self, logits: Tensor) -> Tensor:
        """kl, nll and mse of a model without units, (measures,) float64."""
        logq = logits.log_softmax(-1)
        kl = (self.certainty - torch.linalg.vecdot(self.p, logq)).mean(dtype=torch.float64)
        mse = (logits - self.logits).square().mean(dtype=torch.float64)
        return torch.stack([kl, _nll(logq, self.ids) - self.loss, mse]).double().cpu()


def _nll(logp: Tensor, ids: Tensor) -> Tensor:
    """Mean over sequences and tokens of the negative log-likelihood of each token given those before it."""
    return -logp[:, :-1].gather(-1, ids[:, 1:, None]).mean(dtype=torch.float64)


@contextlib.contextmanager
def _resumed(layers: nn.ModuleList, start: int, states: Tensor | None, arity: Mapping[int, int]) -> Iterator[None]:
    """Layers before ``start`` compute nothing; ``states`` come out of the last of them."""
    with contextlib.ExitStack() as stack:
        for k in range(start):
            last = k == start - 1
            answer = (lambda _: states) if last else (lambda given: given)
            stack.enter_context(answering(layers[k], answer, arity[k]))  # type: ignore[arg-type]
        yield


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return nn.functional.cosine_similarity(a.float(), b.float(), dim=-1).double()


def measure(name: str) -> Measure:
    """``name`` as a measure. Raises UsageError for any other."""
    found = next((m for m in MEASURES if m == name), None)
    if found is None:
        raise UsageError(f"there is no measure {name!r}; choose one of {', '.join(MEASURES)}")
    return found


__all__ = ["MEASURES", "Masked", "Measure", "Reference", "measure"]
