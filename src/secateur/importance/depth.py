"""Layers by what their absence costs.

    block-influence   1 - mean over tokens of cos(x, x'), x and x' the stream before and after the layer (ShortGPT,
                      arXiv 2403.03853); from the statistics of any walk
    depth-kl          mean over tokens of KL(full model || model without the layer) (Minitron-SSM, arXiv 2504.11409)
    depth-ppl         rise of the mean next-token loss, the logarithm of perplexity (Minitron, arXiv 2407.14679)
    ...-iterative     greedy: drop the cheapest layer, measure the others again without it, and so on (SLEB,
                      arXiv 2402.09025); the score of a layer is the step in which it goes

Skipping costs a forward pass per layer and batch, the iterative form about half the square of the layers, and both need
the whole model in memory. Statistics: ``"depth/one-shot/kl"``, ``".../nll"``, ``"depth/iterative/kl"``, ``".../nll"``,
shape (layers,).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from secateur.anatomy.anatomy import Anatomy
from secateur.calibration.stats import Stats, check_windows
from secateur.errors import UsageError
from secateur.importance.whole import decoder_layers, load_whole, next_token_loss
from secateur.model import Model

Progress = Callable[[int, int], None]
What = Literal["kl", "nll"]
#: Score name -> (where, what) among the statistics.
SKIPPED: dict[str, tuple[str, What]] = {
    "depth-kl": ("one-shot", "kl"),
    "depth-ppl": ("one-shot", "nll"),
    "depth-kl-iterative": ("iterative", "kl"),
    "depth-ppl-iterative": ("iterative", "nll"),
}
LAYER_SCORES = ("block-influence", *SKIPPED)


def layer_scores(anatomy: Anatomy, stats: Stats, name: str) -> list[float]:
    """One value per layer; layers with small ones go first. Raises UsageError when the statistics lack it."""
    n = anatomy.n_layers
    if name == "block-influence":
        if f"{n - 1}/block/out/cosine" not in stats.tensors:
            raise UsageError("the statistics hold no block influence", hint="calibrate again")
        sums = [[float(stats.tensors[f"{i}/block/out/{what}"]) for what in ("cosine", "tokens")] for i in range(n)]
        return [1 - cosine / tokens for cosine, tokens in sums]
    if name not in SKIPPED:
        raise UsageError(f"layer score {name!r} is unknown; choose one of {', '.join(LAYER_SCORES)}")
    where, what = SKIPPED[name]
    found = stats.tensors.get(f"depth/{where}/{what}")
    if found is None:
        option = "--skip-layers" if where == "one-shot" else "--skip-layers iterative"
        raise UsageError(f"the statistics hold no {name} of the layers", hint=f"calibrate again with {option}")
    return [float(v) for v in found]


class Skipping:
    """A model in memory whose layers can be skipped, and the text on which that is measured."""

    def __init__(
        self, model: Model, windows: Tensor, *, batch: int = 1, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> None:
        check_windows(model, windows)
        self.whole = load_whole(model, dtype=dtype, device=device)
        self.layers = decoder_layers(self.whole, model.anatomy.n_layers)
        self.batches = [b.to(device) for b in torch.split(windows, batch)]

    def costs(
        self, trials: Sequence[Collection[int]], advance: Callable[[], None] = lambda: None
    ) -> dict[What, Tensor]:
        """Per set of skipped layers the mean KL per token from the full model, and the rise of the mean loss.

        Shape (trials,), float64.
        """
        kl, nll = (torch.zeros(len(trials), dtype=torch.float64) for _ in range(2))
        total = sum(b.shape[0] for b in self.batches)
        for ids in self.batches:
            share = ids.shape[0] / total
            full = self._logits(ids, ())
            reference, loss = full.float().log_softmax(-1), float(next_token_loss(full, ids))
            for i, skipped in enumerate(trials):
                logits = self._logits(ids, skipped)
                nll[i] += share * (float(next_token_loss(logits, ids)) - loss)
                kl[i] += share * float(_kl(reference, logits))
                advance()
        return {"kl": kl, "nll": nll}

    @torch.no_grad()
    def _logits(self, ids: Tensor, skipped: Collection[int]) -> Tensor:
        with skipping(self.layers, skipped):
            logits: Tensor = self.whole(ids, use_cache=False).logits
        return logits


def _kl(reference: Tensor, logits: Tensor) -> Tensor:
    """Mean over tokens of KL(reference || logits); reference holds log-probabilities."""
    found = torch.nn.functional.kl_div(logits.float().log_softmax(-1), reference, log_target=True, reduction="none")
    return found.sum(-1).mean()


@contextlib.contextmanager
def skipping(layers: nn.ModuleList, skipped: Collection[int]) -> Iterator[None]:
    """The listed layers hand the residual stream on unchanged."""

    def identity(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        before = args[0] if args else kwargs["hidden_states"]
        return (before, *out[1:]) if isinstance(out, tuple) else before

    handles = [layers[i].register_forward_hook(identity, with_kwargs=True) for i in skipped]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def measure(
    model: Model,
    windows: Tensor,
    *,
    iterative: bool = False,
    allowed: Callable[[Sequence[int]], bool] = lambda kept: True,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Statistics of skipped layers, to be added to a :class:`Stats`.

    ``allowed``: whether the config can say the layers that are left; the greedy order respects it.
    """
    work = Skipping(model, windows, batch=batch, dtype=dtype, device=device)
    n = model.anatomy.n_layers
    steps = _Steps((n + (n * (n + 1) if iterative else 0)) * len(work.batches), progress)
    first = work.costs([(i,) for i in range(n)], steps)
    found = {f"depth/one-shot/{what}": value for what, value in first.items()}
    whats: tuple[What, ...] = ("kl", "nll") if iterative else ()
    for what in whats:
        found[f"depth/iterative/{what}"] = _greedy(work, what, n, allowed, steps)
    return found


def _greedy(
    work: Skipping, what: What, n: int, allowed: Callable[[Sequence[int]], bool], advance: Callable[[], None]
) -> Tensor:
    """The step in which each layer goes; layers that never go share the last step."""
    gone: list[int] = []
    when = torch.full((n,), float(n), dtype=torch.float64)
    while True:
        kept = [i for i in range(n) if i not in gone]
        free = [i for i in kept if len(kept) > 1 and allowed([j for j in kept if j != i])]
        if not free:
            return when
        costs = work.costs([(*gone, i) for i in free], advance)[what]
        gone.append(free[int(costs.argmin())])
        when[gone[-1]] = len(gone) - 1


class _Steps:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def __call__(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)
