"""Everything `secateur eval` measures, as one versioned JSON document that the report reads.

secateur_eval  1
versions       of what took part
settings       window, stride, limit, batch, device, dtype, kernels, speed settings, context
text           [{name, bytes, sha256}]                     what was measured on
models         [{role, name, source, model_type, config_sha256, sha256, shape, kinds, size,
                 text: {total, sources}, agreement, why_no_agreement, speed, samples,
                 record, healing, importance}]             the parent first where there is one
prompts        [{text, truth}]                             of the samples
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
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
from secateur.evaluation.vocabulary import parent_rows
from secateur.evaluation.windows import Source, make_windows, read_sources
from secateur.model import Model
from secateur.pruning.provenance import versions

VERSION = 1
WINDOW = 1024
#: Told what is being measured, and how much of it is done.
Progress = Callable[[str, int, int], None]
_Losses = tuple[Perplexity, list[Perplexity]]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure. ``window`` 0: 1,024 tokens, or as many as every model can read. ``stride`` 0: segments.

    ``limit``: bytes of each text that are read. ``context``: tokens for which caches are counted. ``prompts``: how many
    samples of ``sample_tokens`` each. ``speed``: None leaves speed and memory unmeasured.
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


def evaluate(
    models: Sequence[Model],
    text: Sequence[str | Path],
    *,
    parent: Model | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure ``models``, and how they agree with ``parent``; at most two models are in memory at a time.

    Raises UsageError for text, windows or devices that cannot be used; models that share no vocabulary with the parent
    are measured without agreement, and the document says why.
    """
    settings = settings or Settings()
    everyone = ([parent] if parent is not None else []) + list(models)
    settings = _settled(everyone, settings)
    sources = read_sources(text, settings.limit)
    run = _Run(sources, settings, progress or (lambda *_: None))
    entries = run.measured(list(models), parent)
    if settings.speed is not None:
        speeds = measure(everyone, settings.place, settings.speed, progress=lambda a, b: run.progress("speed", a, b))
        for entry, speed in zip(entries, speeds, strict=True):
            entry["speed"] = speed
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
    stride = settings.stride or window
    return Settings(
        **{k: getattr(settings, k) for k in ("limit", "batch", "context", "prompts", "sample_tokens", "speed")},
        window=window,
        stride=stride,
        place=settings.place.resolved(),
    )


class _Run:
    """One evaluation: what all its models share."""

    def __init__(self, sources: Sequence[Source], settings: Settings, progress: Progress) -> None:
        self.sources, self.settings, self.progress = sources, settings, progress
        self.prompts = samples.prompts(sources, settings.prompts) if settings.prompts else []

    def measured(self, models: list[Model], parent: Model | None) -> list[dict[str, Any]]:
        """One entry per model, the parent first."""
        if parent is None:
            return [self._alone(m, "model") for m in models]
        entries: list[dict[str, Any]] = []
        first: dict[str, Any] | None = None
        with loaded(parent.folder, self.settings.place) as network:
            for child in models:
                entry, comparison = self._child(network, parent, child)
                if comparison is not None and first is None and not entry["agreement"]["trimmed"]:
                    first = self._entry(parent, "parent", comparison.parent, network)
                entries.append(entry)
            if first is None:
                first = self._entry(parent, "parent", self._loss(network, parent), network)
        return [first, *entries]

    def _alone(self, model: Model, role: str) -> dict[str, Any]:
        with loaded(model.folder, self.settings.place) as network:
            return self._entry(model, role, self._loss(network, model), network)

    def _child(self, network: Any, parent: Model, child: Model) -> tuple[dict[str, Any], Comparison | None]:
        tokenizer = _tokenizer(child)
        try:
            rows = parent_rows(parent, child, _tokenizer(parent), tokenizer)
        except UsageError as why:
            return {**self._alone(child, "child"), "why_no_agreement": why.message}, None
        text = make_windows(tokenizer, self.sources, self.settings.window, self.settings.stride)
        with loaded(child.folder, self.settings.place) as small:
            found = compare(
                network,
                small,
                text,
                rows=rows,
                batch=self.settings.batch,
                progress=self._told(child, "loss and agreement"),
            )
            entry = self._entry(child, "child", found.child, small)
        entry["agreement"] = {**found.agreement.to_json(), "trimmed": rows is not None}
        return entry, found

    def _loss(self, network: Any, model: Model) -> _Losses:
        text = make_windows(_tokenizer(model), self.sources, self.settings.window, self.settings.stride)
        return perplexity(network, text, batch=self.settings.batch, progress=self._told(model, "loss"))

    def _told(self, model: Model, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(f"{display_name(model)}: {what}", done, total)

    def _entry(self, model: Model, role: str, losses: _Losses, network: Any) -> dict[str, Any]:
        names = [s.name for s in self.sources]
        with FileHasher(model.weights.files) as hasher:
            hashes = hasher.digests()
        return {
            "role": role,
            "name": display_name(model),
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
            "samples": self._samples(model, network),
            "record": traces.record(model.folder),
            "healing": traces.healing(model.folder / traces.METRICS),
            "importance": traces.importance(model.folder / traces.IMPORTANCE),
        }

    def _samples(self, model: Model, network: Any) -> list[str]:
        if not self.prompts:
            return []
        tokenizer, told, found = _tokenizer(model), self._told(model, "samples"), []
        for i, prompt in enumerate(self.prompts, 1):
            found.append(samples.complete(network, tokenizer, prompt.text, self.settings.sample_tokens))
            told(i, len(self.prompts))
        return found


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
