"""The workbench of a search: the parent and the text in memory, candidates cut from them, and what both say of text.

Held: the parent's tensors, the parent as a module, what it said of the text that was read (:mod:`.remembered`), and one
candidate at a time. Each is made when it is first asked for, once, and shared by all candidates.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, singledispatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from secateur.anatomy.effective import effective_config
from secateur.calibration.skeleton import quiet
from secateur.calibration.stats import Stats, check_windows
from secateur.errors import CheckpointError
from secateur.importance import CRITERIA, Scores, changed_axes, default_score, keep_best
from secateur.importance.depth import skipping
from secateur.importance.whole import decoder_layers, load_whole
from secateur.kernels import fast
from secateur.model import Model
from secateur.pruning.choose import score_units
from secateur.pruning.cut import Cut
from secateur.pruning.marginal import Curve, read_curves
from secateur.pruning.shape import resolve
from secateur.search.candidates import Candidate
from secateur.search.remembered import Remembered, batches
from secateur.search.repaired import repaired
from secateur.search.stages import Shape, Stage
from secateur.train.distribution import log_probs, lump, outcomes


class Bench:
    """``windows`` (n, tokens) int64: text to measure on; ``lessons`` (m, tokens): other text, to distil on.

    ``criterion``: which units of a candidate stay; measured ones need ``stats``. ``batch``: windows at a time.
    """

    def __init__(
        self,
        model: Model,
        windows: Tensor,
        *,
        lessons: Tensor | None = None,
        stats: Stats | None = None,
        criterion: str = "",
        batch: int = 4,
        seed: int = 0,
    ) -> None:
        for ids in (windows, lessons):
            if ids is not None:
                check_windows(model, ids)
        self.model, self.windows, self.lessons, self.stats = model, windows, lessons, stats
        self.criterion = criterion or default_score(stats is not None)
        self.batch, self.seed = batch, seed
        self.parent = Remembered(lambda: self.whole, windows, batch=batch)
        self.tutor = None if lessons is None else Remembered(lambda: self.whole, lessons, batch=batch)
        self.repaired: dict[Shape, Path] = {}
        self._tensors: dict[str, Tensor] = {}
        self._units: dict[str, Scores] = {}
        self._curves: dict[tuple[int, ...], tuple[Curve, ...]] = {}

    @cached_property
    def whole(self) -> Any:
        """The parent, float32, in evaluation mode."""
        return load_whole(self.model).requires_grad_(False)

    @cached_property
    def scratch(self) -> Path:
        """A folder for repaired shapes, gone with this object."""
        self._scratch = tempfile.TemporaryDirectory(prefix="secateur-search-")
        return Path(self._scratch.name)

    def read(self, name: str) -> Tensor:
        """A tensor of the parent, from disk once."""
        if name not in self._tensors:
            self._tensors[name] = self.model.read(name)
        return self._tensors[name]

    def curves(self, layers: tuple[int, ...]) -> tuple[Curve, ...]:
        """Importance lost by axis and size, over ``layers``; read once."""
        if layers not in self._curves:
            assert self.stats is not None
            sizes = self.model.anatomy.sizes
            self._curves[layers] = read_curves(self.model, self.stats, sizes, set(), frozenset(layers)).curves
        return self._curves[layers]

    def cut(self, sizes: dict[str, int], layers: Sequence[int]) -> Cut:
        """The cut to axis ``sizes`` that keeps ``layers``, with the units that the criterion likes best."""
        return Cut(self.model.anatomy, keep_best(self.model.anatomy, self._scores(sizes), sizes), layers)

    def _scores(self, sizes: dict[str, int]) -> Scores:
        if self.criterion not in CRITERIA:  # read from statistics, and dependent on the sizes
            return score_units(self.model, sizes, self.criterion, self.seed, self.stats)
        axes = [a for a in changed_axes(self.model.anatomy, sizes) if a != "v"]
        for axis in axes:
            if axis not in self._units:
                self._units[axis] = CRITERIA[self.criterion](self.model.anatomy, self.read, [axis], self.seed)
        return {key: value for axis in axes for key, value in self._units[axis].items()}

    def module(self, cut: Cut) -> Any:
        """The child of ``cut`` as plain transformers makes it, float32. Raises CheckpointError when a key is left."""
        from transformers import AutoModelForCausalLM

        state = {t.name: cut.apply(t, self.read(t.decl.name)).float().clone() for t in cut.targets() if t.name}
        config = effective_config(cut.config).object
        kind: Any = AutoModelForCausalLM._model_mapping[type(config)]
        with quiet():
            made, info = kind.from_pretrained(
                None, config=config, state_dict=state, dtype=torch.float32, output_loading_info=True
            )
        if any(info.values()):
            raise CheckpointError(f"transformers does not load a candidate strictly: {info}")
        return made.eval()

    # ---- measuring ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def compare(self, module: Any, windows: Sequence[int]) -> tuple[float, float]:
        """(mean KL per token from the parent, mean next-token loss) of ``module`` on these windows, in nats.

        The parent must have been asked about them before: ``module`` may be the parent in disguise.
        """
        kl = nll = 0.0
        for at in batches(windows, self.batch):
            ids, truth = self.windows[list(at)], self.parent.answers(at)
            logp = log_probs(module(ids, use_cache=False).logits)
            nll += float(functional.nll_loss(logp[:, :-1].flatten(0, 1), ids[:, 1:].flatten())) * len(at)
            mine = lump(logp.flatten(0, 1), truth.ids)
            divergence = functional.kl_div(mine, outcomes(truth, logp.shape[-1]), log_target=True, reduction="sum")
            kl += float(divergence) / ids.shape[1]
        return kl / len(windows), nll / len(windows)


@singledispatch
def built(shape: Shape, bench: Bench, stage: Stage) -> AbstractContextManager[Any]:
    """``shape`` as a module to run, for a while. One that ``stage`` heals must be a copy of its own.

    Types of shapes register here: ``@built.register`` above a context manager of these arguments.
    """
    raise TypeError(f"nothing builds a {type(shape).__name__}")


@built.register(Candidate)
@contextmanager
def _built(candidate: Candidate, bench: Bench, stage: Stage) -> Iterator[Any]:
    """Where only layers go, and nothing is to be trained, the parent skips them; else the cut itself."""
    if stage.repair:
        with repaired(candidate, bench) as module:
            yield module
        return
    anatomy = bench.model.anatomy
    sizes = sizes_of(candidate, bench.model)
    if sizes == anatomy.sizes and not stage.heal:
        gone = set(range(anatomy.n_layers)) - set(candidate.layers)
        with fast(bench.whole), skipping(decoder_layers(bench.whole, anatomy.n_layers), gone):
            yield bench.whole
        return
    module = bench.module(bench.cut(sizes, candidate.layers))
    with fast(module):
        yield module


def sizes_of(candidate: Candidate, model: Model) -> dict[str, int]:
    """Axis sizes of a candidate."""
    return resolve(model.anatomy, candidate.keep)
