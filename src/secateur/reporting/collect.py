"""Results files and checkpoints -> one list of models to show, the parent first."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateur.errors import UsageError
from secateur.evaluation import traces
from secateur.evaluation.results import Progress, Settings, evaluate, load_results
from secateur.model import Model, open_model
from secateur.reporting.searches import is_search
from secateur.search.record import load_record

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Collected:
    """What a page shows. ``models``: entries of results documents under distinct names, ``measured`` in the document of
    that index; ``healing`` and ``importance``: curves by name; ``searches``: records of searches; ``notes``: what a
    reader must know to trust it.
    """

    models: list[dict[str, Any]]
    documents: list[Document]
    healing: dict[str, list[dict[str, float]]]
    importance: dict[str, dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    searches: list[Document] = field(default_factory=list)

    @property
    def parent(self) -> dict[str, Any] | None:
        """The model that agreements and ratios refer to."""
        return next((m for m in self.models if m["role"] == "parent"), None)


def collect(
    sources: Sequence[str | Path | Model],
    text: Sequence[str | Path] = (),
    *,
    parent: str | Path | Model | None = None,
    metrics: Sequence[Path] = (),
    importance: Sequence[Path] = (),
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Collected:
    """Read the results and the searches (``*.json``) among ``sources`` and measure the checkpoints on ``text``.

    The parent of the checkpoints is ``parent``, or the first of several. ``metrics`` and ``importance``: files of
    curves that do not lie in a checkpoint's folder. Raises UsageError for what cannot be read.
    """
    found = [Path(s) for s in sources if not isinstance(s, Model) and _is_results(Path(s))]
    files = [f for f in found if not is_search(f)]
    folders = [s for s in sources if isinstance(s, Model) or not _is_results(Path(s))]
    documents = [load_results(f) for f in files]
    if folders or parent is not None:
        documents.insert(0, _measure(folders, text, parent, settings, progress))
    if not documents:
        what = "a search alone makes no page" if found else "nothing to report on"
        raise UsageError(what, hint="give results files or checkpoint folders")
    models = _models(documents)
    healing = {m["name"]: m["healing"] for m in models if m["healing"]}
    scores = {m["name"]: m["importance"] for m in models if m["importance"]}
    for path in metrics:
        healing[path.resolve().parent.name] = _present(traces.healing(path), path)
    for path in importance:
        scores[path.resolve().parent.name] = _present(traces.importance(path), path)
    searches = [load_record(f) for f in found if is_search(f)]
    return Collected(models, documents, healing, scores, _notes(documents), searches)


def _is_results(path: Path) -> bool:
    return path.suffix == ".json" and path.name != "config.json"


def _measure(
    folders: Sequence[str | Path | Model],
    text: Sequence[str | Path],
    parent: str | Path | Model | None,
    settings: Settings | None,
    progress: Progress | None,
) -> Document:
    if not text:
        names = ", ".join(f.source if isinstance(f, Model) else str(f) for f in folders)
        raise UsageError(f"{names}: checkpoints are measured on text, and none is given", hint="--text FILE")
    above = parent if parent is not None else folders[0] if len(folders) > 1 else None
    children = [f for f in folders if f is not above and str(f) != str(above)]
    if not children:
        raise UsageError("only the parent is given", hint="name at least one checkpoint besides it")
    with ExitStack() as stack:
        first, *opened = (
            f if f is None or isinstance(f, Model) else stack.enter_context(open_model(f)) for f in (above, *children)
        )
        return evaluate([m for m in opened if m], text, parent=first, settings=settings, progress=progress)


def _present(value: Any, path: Path) -> Any:
    if value is None:
        raise UsageError(f"{path}: no such file")
    return value


def _models(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """Entries of all documents, each checkpoint once, the parent first, under distinct names."""
    found: dict[str, dict[str, Any]] = {}
    for i, document in enumerate(documents):
        for entry in document["models"]:
            key = entry["config_sha256"] + "".join(sorted(entry["sha256"].values())) + str(entry.get("reduction"))
            known = found.get(key)
            if known is None or (known["speed"] is None and entry["speed"] is not None):
                found[key] = {**entry, "measured": i}
    models = sorted(found.values(), key=lambda m: m["role"] != "parent")
    for extra in [m for m in models if m["role"] == "parent"][1:]:
        extra["role"] = "model"
    _distinct(models)
    return models


def _distinct(models: Sequence[dict[str, Any]]) -> None:
    """The second model of a name becomes ``name (2)``."""
    seen: dict[str, int] = {}
    for m in models:
        name = m["name"]
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            m["name"] = f"{name} ({seen[name]})"


def _notes(documents: Sequence[Document]) -> list[str]:
    notes = []
    texts = {tuple(t["sha256"] for t in d["text"]) for d in documents}
    if len(texts) > 1:
        notes.append("The models were measured on different texts: their losses do not compare.")
    if len({(d["settings"]["window"], d["settings"]["stride"]) for d in documents}) > 1:
        notes.append("The models were measured with different windows: their losses do not compare exactly.")
    for document in documents:
        for m in document["models"]:
            if m["why_no_agreement"]:
                notes.append(f"{m['name']}: no agreement with the parent. {m['why_no_agreement']}.")
    if sum(any(m["speed"] for m in d["models"]) for d in documents) > 1:
        notes.append("Speeds come from several runs; only the ratios within a run compare.")
    return notes


__all__ = ["Collected", "collect"]
