"""Which units stay: given units or scores for the widths, scores for the layers, the tokenizer for the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateur.anatomy import layout as lo
from secateur.calibration.stats import Stats
from secateur.errors import InexpressibleError, UsageError
from secateur.importance import CRITERIA, MEASURED, Scores, changed_axes
from secateur.importance.depth import LAYER_SCORES, layer_scores
from secateur.model import Model
from secateur.pruning.configure import child_config
from secateur.pruning.keep import KeepSets
from secateur.pruning.vocab import VocabTrim, choose_tokens, count_tokens, needed_tokens, trim_tokenizer
from secateur.pruning.vocab_files import read_tokenizer


def score_units(model: Model, sizes: dict[str, int], score: str, seed: int, stats: Stats | None = None) -> Scores:
    """Scores of every axis that shrinks, by the criterion called ``score``; the vocabulary is not scored here.

    Raises UsageError for an unknown criterion, or one that needs statistics when there are none.
    """
    axes = [a for a in changed_axes(model.anatomy, sizes) if a != "v"]
    if score in MEASURED:
        if stats is None:
            raise UsageError(
                f"--score {score} needs statistics of real text",
                hint=f"secateur calibrate {model.source} --text FILE --out stats.safetensors, then --stats",
            )
        return MEASURED[score](model.anatomy, stats, axes, sizes, model.read)
    if score not in CRITERIA:
        raise UsageError(f"--score {score!r} is unknown; choose one of {', '.join([*CRITERIA, *MEASURED])}")
    return CRITERIA[score](model.anatomy, model.read, axes, seed)


def chosen_units(model: Model, kept: Any, sizes: Mapping[str, int]) -> KeepSets:
    """The units that a plan names. Raises UsageError when they are not those of a cut to ``sizes``."""
    if not isinstance(kept, Mapping) or not all(isinstance(scopes, Mapping) for scopes in kept.values()):
        raise UsageError(f"plan: 'kept' is {type(kept).__name__}, expected units by axis and scope")
    found = KeepSets.from_json(model.anatomy, kept)
    wrong = [a for a, n in found.sizes().items() if a in model.anatomy.live and n != sizes[a]]
    if wrong:
        raise UsageError(f"plan: the units kept on axis {wrong[0]!r} are not as many as its size {sizes[wrong[0]]}")
    return found


def choose_layers(model: Model, count: int, score: str, seed: int, stats: Stats | None = None) -> tuple[int, ...]:
    """``count`` layers: the lowest-scored go first, one at a time, each only if the config can say the rest.

    Scores: 'first' prefers early layers, 'random' draws, 'magnitude' is the mean square of a layer's matrices; those of
    :mod:`secateur.importance.depth` read ``stats``, and criteria for units that do so mean block influence.
    """
    n = model.anatomy.n_layers
    values = _layer_scores(model, score, seed, stats)
    kept = list(range(n))
    for layer in sorted(range(n), key=lambda i: (values[i], -i)):
        if len(kept) == count:
            break
        rest = [i for i in kept if i != layer]
        if can_keep(model, rest):
            kept = rest
    if len(kept) > count:
        raise InexpressibleError(
            f"{model.anatomy.family.model_type}: dropping single layers stops at {len(kept)} of the {count} asked for",
            hint="name the layers to drop together with --drop-layers",
        )
    return tuple(kept)


def can_keep(model: Model, layers: Sequence[int]) -> bool:
    """Whether the config can say the model with only ``layers``."""
    try:
        child_config(model.anatomy, model.anatomy.sizes, layers)
    except InexpressibleError:
        return False
    return True


def _layer_scores(model: Model, score: str, seed: int, stats: Stats | None) -> list[float]:
    n = model.anatomy.n_layers
    if score in LAYER_SCORES or score in MEASURED:
        if stats is None:
            raise UsageError(
                f"layer score {score!r} needs statistics of real text",
                hint=f"secateur calibrate {model.source} --text FILE --out stats.safetensors, then --stats",
            )
        return layer_scores(model.anatomy, stats, score if score in LAYER_SCORES else LAYER_SCORES[0])
    if score not in CRITERIA:
        known = ", ".join([*CRITERIA, *LAYER_SCORES])
        raise UsageError(f"layer score {score!r} is unknown; choose one of {known}")
    if score == "first":
        return [-float(i) for i in range(n)]
    if score == "random":
        return list(np.random.default_rng([seed, n]).random(n))
    total, entries = [0.0] * n, [0] * n
    for decl in model.anatomy.tensors.values():
        if decl.layer is not None and sum(s > 1 for s in lo.shape(decl.layout, model.anatomy.sizes)) > 1:
            t = model.read(decl.name)
            total[decl.layer] += float(torch.linalg.vector_norm(t, dtype=torch.float32)) ** 2
            entries[decl.layer] += t.numel()
    return [math.sqrt(t / max(1, m)) for t, m in zip(total, entries, strict=True)]


@dataclass(frozen=True, slots=True)
class VocabChoice:
    """Kept embedding rows, and the trim of the tokenizer where the checkpoint has one."""

    rows: tuple[int, ...]
    trim: VocabTrim | None

    @property
    def config_edits(self) -> dict[str, Any]:
        return {} if self.trim is None else dict(self.trim.config_edits)


def choose_vocabulary(model: Model, size: int, scratch: Path, texts: Sequence[str] | None = None) -> VocabChoice:
    """Choose ``size`` tokens and write the trimmed tokenizer files into ``scratch``.

    Without a tokenizer.json the first rows stay, provided that the config's special tokens are among them.
    """
    rows = model.anatomy.sizes["v"]
    if not (model.folder / "tokenizer.json").is_file():
        _check_specials(model, size)
        return VocabChoice(tuple(range(size)), None)
    counts = count_tokens(model.folder, texts) if texts is not None else None
    keep = needed_tokens(model.folder, rows=rows)
    kept = choose_tokens(read_tokenizer(model.folder)[0], size, counts=counts, keep=keep, rows=rows)
    trim = trim_tokenizer(model.folder, kept, scratch, rows=rows)
    return VocabChoice(trim.kept, trim)


def _check_specials(model: Model, size: int) -> None:
    for key, value in model.raw.items():
        ids = value if isinstance(value, list) else [value]
        if key.endswith("_token_id") and any(isinstance(i, int) and i >= size for i in ids):
            raise UsageError(
                f"vocab={size} would remove {key} = {value}, and there is no tokenizer.json to renumber it",
                hint="add the tokenizer files to the checkpoint folder, or keep more tokens",
            )
