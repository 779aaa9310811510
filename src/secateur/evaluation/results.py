"""Everything `secateur eval` measures, as one versioned JSON document that the report reads.

secateur_eval  1
versions       of what took part
settings       window, stride, limit, batch, device, dtype, kernels, speed settings, context
text           [{name, bytes, sha256}]                     what was measured on
models         [{role, name, source, model_type, config_sha256, sha256, shape, kinds, size,
                 text: {total, sources}, agreement, why_no_agreement, speed, samples,
                 record, healing, importance, reduction}]  the parent first where there is one

With a token reduction every model stands there twice, the second time under the role "reduced": its ``reduction`` says
how. All models are then scored on sliding windows, and what a window holds before its first target is the prompt.
prompts        [{text, truth}]                             of the samples
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from secateur.checkpoint.hashing import FileHasher
from secateur.data import check_vocabulary, load_tokenizer
from secateur.errors import UsageError
from secateur.evaluation import samples, traces
from secateur.evaluation.agreement import Comparison, compare
from secateur.evaluation.load import Place, loaded, positions
from secateur.evaluation.perplexity import Perplexity, perplexity
from secateur.evaluation.size import shape, size
from secateur.evaluation.speed import SpeedSettings, measure
from secateur.evaluation.streamed import Streamed, Streaming, check, streamed, too_large
from secateur.evaluation.vocabulary import parent_rows
from secateur.evaluation.windows import Source, make_windows, read_sources
from secateur.model import Model
from secateur.pruning.provenance import versions
from secateur.tokens.runtime import reduce_tokens
from secateur.tokens.settings import TokenReduction

VERSION = 1
WINDOW = 1024
#: Told what is being measured, and how much of it is done.
Progress = Callable[[str, int, int], None]
_Losses = tuple[Perplexity, list[Perplexity]]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure. ``window`` 0: 1,024 tokens, or as many as every model can read. ``stride`` 0: segments.

    ``limit``: bytes of each text that are read. ``context``: tokens for which caches are counted. ``prompts``: how many
    samples of ``sample_tokens`` each. ``speed``: None leaves speed and memory unmeasured. ``reduction``: measure every
    model with reduced prompts as well; windows then slide by half their length where ``stride`` is 0. ``stream``:
    block by block, for models larger than memory; None: when they are.
    """

    window: int = 0
    stride: int = 0
    limit: int | None = None
    batch: int = 8
    context: int = 4096
    prompts: int = 0
    sample_tokens: int = 64
    place: Place = field(default_factory=Place)
    speed: SpeedSettings | None = None
    reduction: TokenReduction | None = None
    stream: bool | None = None


def evaluate(
    models: Sequence[Model],
    text: Sequence[str | Path],
    *,
    parent: Model | None = None,
    settings: Settings | None = None,
    streaming: Streaming | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure ``models``, and how they agree with ``parent``; at most two models are in memory at a time.

    ``streaming``: where a streamed measurement keeps what it resumes from.

    Raises UsageError for text, windows or devices that cannot be used; models that share no vocabulary with the parent
    are measured without agreement, and the document says why.
    """
    settings = settings or Settings()
    everyone = ([parent] if parent is not None else []) + list(models)
    settings = _settled(everyone, settings)
    stream = too_large(models, parent, settings.place) if settings.stream is None else settings.stream
    if stream:
        check(prompts=settings.prompts, speed=settings.speed is not None, reduction=settings.reduction is not None)
    settings = replace(settings, stream=stream, place=replace(settings.place, fast=stream or settings.place.fast))
    sources = read_sources(text, settings.limit)
    run = _Run(sources, settings, streaming or Streaming(), progress or (lambda *_: None))
    entries = run.measured(list(models), parent)
    if settings.speed is not None:
        reductions = [None] * len(everyone) + [settings.reduction] * (len(entries) - len(everyone))
        speeds = measure(
            (everyone * 2)[: len(entries)],
            settings.place,
            settings.speed,
            reductions=reductions,
            progress=lambda a, b: run.progress("speed", a, b),
        )
        for entry, speed in zip(entries, speeds, strict=True):
            entry["speed"] = speed
    for done in run.walked:
        done.forget()
    return {
        "secateur_eval": VERSION,
        "versions": versions(),
        "settings": {**asdict(settings), "place": settings.place.to_json()},
        "text": [{"name": s.name, "bytes": s.bytes, "sha256": s.sha256} for s in sources],
        "prompts": [{"text": p.text, "truth": p.truth} for p in run.prompts],
        "models": entries,
    }


def _settled(models: Sequence[Model], settings: Settings) -> Settings:
    """The settings with every automatic choice made, the same for all models."""
    bounds = [p for m in models if (p := positions(m.anatomy.config)) is not None]
    most = min(bounds, default=None)
    if settings.window and most is not None and settings.window > most:
        raise UsageError(f"window {settings.window}: a model reads at most {most} tokens", hint=f"--window {most}")
    window = settings.window or min(WINDOW, most or WINDOW)
    stride = settings.stride or (window if settings.reduction is None else window // 2)
    if settings.reduction is not None and stride >= window:
        raise UsageError(
            f"window {window}, stride {stride}: with reduced prompts a window must hold a prompt before what it scores",
            hint=f"--stride {window // 2}",
        )
    return replace(settings, window=window, stride=stride, place=settings.place.resolved())


class _Run:
    """One evaluation: what all its models share."""

    def __init__(self, sources: Sequence[Source], settings: Settings, streaming: Streaming, progress: Progress) -> None:
        self.sources, self.settings, self.streaming, self.progress = sources, settings, streaming, progress
        self.prompts = samples.prompts(sources, settings.prompts) if settings.prompts else []
        self.walked: list[Streamed] = []

    def measured(self, models: list[Model], parent: Model | None) -> list[dict[str, Any]]:
        """One entry per model, the parent first; then the same with reduced prompts, where they are asked for."""
        reduction = self.settings.reduction
        if parent is None:
            again = models if reduction is not None else []
            return [self._alone(m, "model") for m in models] + [self._alone(m, "reduced", reduction) for m in again]
        entries: list[dict[str, Any]] = []
        first: dict[str, Any] | None = None
        with self._network(parent) as network:
            for child in models:
                entry, comparison = self._child(network, parent, child)
                if comparison is not None and first is None and not entry["agreement"]["trimmed"]:
                    first = self._entry(parent, "parent", comparison.parent, network)
                entries.append(entry)
            if first is None:
                first = self._entry(parent, "parent", self._loss(network, parent), network)
            for model in [parent, *models] if reduction is not None else []:
                entries.append(self._child(network, parent, model, reduction)[0])
        return [first, *entries]

    def _alone(self, model: Model, role: str, reduction: TokenReduction | None = None) -> dict[str, Any]:
        with self._network(model) as network:
            return self._entry(model, role, self._loss(network, model, reduction), network, reduction)

    def _child(
        self, network: Any, parent: Model, child: Model, reduction: TokenReduction | None = None
    ) -> tuple[dict[str, Any], Comparison | None]:
        role = "child" if reduction is None else "reduced"
        tokenizer = _tokenizer(child)
        try:
            rows = parent_rows(parent, child, _tokenizer(parent), tokenizer)
        except UsageError as why:
            return {**self._alone(child, role, reduction), "why_no_agreement": why.message}, None
        text = make_windows(tokenizer, self.sources, self.settings.window, self.settings.stride)
        with self._network(child) as small:
            found = compare(
                network,
                small,
                text,
                rows=rows,
                batch=self.settings.batch,
                reduction=reduction,
                progress=self._told(child, "loss and agreement" + (" with reduced prompts" if reduction else "")),
            )
            entry = self._entry(child, role, found.child, small, reduction)
        entry["agreement"] = {**found.agreement.to_json(), "trimmed": rows is not None}
        return entry, found

    def _loss(self, network: Any, model: Model, reduction: TokenReduction | None = None) -> _Losses:
        text = make_windows(_tokenizer(model), self.sources, self.settings.window, self.settings.stride)
        told = self._told(model, "loss" + (" with reduced prompts" if reduction else ""))
        return perplexity(network, text, batch=self.settings.batch, reduction=reduction, progress=told)

    @contextmanager
    def _network(self, model: Model) -> Iterator[Any]:
        """The model ready to be measured: loaded, or block by block."""
        if not self.settings.stream:
            with loaded(model.folder, self.settings.place) as network:
                yield network
            return
        with streamed(model, self.settings.place, self.streaming) as made:
            made.told = self._told(model, "block by block")
            self.walked.append(made)
            yield made

    def _told(self, model: Model, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(f"{display_name(model)}: {what}", done, total)

    def _entry(
        self, model: Model, role: str, losses: _Losses, network: Any, reduction: TokenReduction | None = None
    ) -> dict[str, Any]:
        names = [s.name for s in self.sources]
        with FileHasher(model.weights.files) as hasher:
            hashes = hasher.digests()
        return {
            "role": role,
            "name": display_name(model) + ("" if reduction is None else f", {_said(reduction)}"),
            "source": model.source,
            "model_type": model.anatomy.family.model_type,
            "config_sha256": model.config_sha256,
            "sha256": dict(hashes),
            "shape": shape(model),
            "kinds": dict(Counter("+".join(k) for k in model.anatomy.kinds)),
            "size": size(model, self.settings.context),
            "text": {
                "total": losses[0].to_json(),
                "sources": [{"name": n, **p.to_json()} for n, p in zip(names, losses[1], strict=True)],
            },
            "agreement": None,
            "why_no_agreement": "",
            "speed": None,
            "samples": self._samples(model, network, reduction),
            "record": traces.record(model.folder),
            "healing": traces.healing(model.folder / traces.METRICS),
            "importance": traces.importance(model.folder / traces.IMPORTANCE),
            "reduction": None if reduction is None else reduction.to_json(),
        }

    def _samples(self, model: Model, network: Any, reduction: TokenReduction | None = None) -> list[str]:
        if not self.prompts:
            return []
        tokenizer, told, found = _tokenizer(model), self._told(model, "samples"), []
        with nullcontext() if reduction is None else reduce_tokens(network, reduction):
            for i, prompt in enumerate(self.prompts, 1):
                found.append(samples.complete(network, tokenizer, prompt.text, self.settings.sample_tokens))
                told(i, len(self.prompts))
        return found


def _said(reduction: TokenReduction) -> str:
    """For names of models: "prompts at 80% (utrc)"."""
    share = "fewer tokens" if reduction.flops is None else f"prompts at {reduction.flops:.0%}"
    return f"{share} ({reduction.method})"


def _tokenizer(model: Model) -> Any:
    tokenizer = load_tokenizer(model.folder)
    check_vocabulary(tokenizer, model.anatomy.sizes["v"], model=model.source)
    return tokenizer


def display_name(model: Model) -> str:
    """A short name: the folder's, or the hub id."""
    return model.folder.resolve().name if Path(model.source).exists() else model.source


#: What every document, and every model in it, holds.
_KEYS = frozenset({"versions", "settings", "text", "prompts", "models"})
_MODEL_KEYS = frozenset(
    (
        "role", "name", "source", "model_type", "config_sha256", "sha256", "shape", "kinds", "size", "text",
        "agreement", "why_no_agreement", "speed", "samples", "record", "healing", "importance",
    )
)  # fmt: skip


def load_results(path: Path) -> dict[str, Any]:
    """Read a document written by `secateur eval`. Raises UsageError for anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise UsageError(f"cannot read {path}: {cause.strerror}") from cause
    except ValueError as cause:
        raise UsageError(f"{path} is not JSON: {cause}") from cause
    if not isinstance(document, dict) or document.get("secateur_eval") != VERSION:
        raise UsageError(
            f"{path} holds no results of version {VERSION}",
            hint="make them with `secateur eval MODEL --text F --out R`",
        )
    entries = document.get("models") or [None]
    whole = document.keys() >= _KEYS and all(isinstance(m, dict) and m.keys() >= _MODEL_KEYS for m in entries)
    if not whole:
        raise UsageError(f"{path}: parts of the results are missing", hint="measure again with `secateur eval`")
    return document


__all__ = ["Progress", "Settings", "display_name", "evaluate", "load_results"]
