"""Measure a latency table: small models of the family, one layer of each kind, random weights, timed in place.

A layer is timed where it stands: marks before and after it while the model reads a prompt and decodes through its own
cache, so masks, positions and states are the real ones. Time outside the layers is the stem's. Models take turns: the
list is walked forwards, then backwards, so that a machine that grows warmer favours none; each turn begins with a
prompt and tokens that do not count. Medians over all turns go into the table, least and most beside them.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import nn

from secateur.anatomy.effective import effective_config
from secateur.calibration.skeleton import quiet
from secateur.errors import SecateurError, UsageError
from secateur.evaluation.decode import prefill, step
from secateur.evaluation.load import DTYPES, Place
from secateur.importance.whole import decoder_layers
from secateur.model import Model
from secateur.pruning.configure import child_config
from secateur.search.clock import Clock, clock_for
from secateur.search.dials import Dial, dials
from secateur.search.latency import PHASES, STEM, Kind, Sample, Table
from secateur.search.resources import Workload
from secateur.search.schedule import kinds_of, representative, schedule
from secateur.search.setting import setting_of

Progress = Callable[[int, int], None]
_GRID = 3


@dataclass(frozen=True, slots=True)
class Turns:
    """``passes`` walks over all models; in each, a model reads ``prompts`` prompts and adds ``tokens`` to each."""

    passes: int = 2
    prompts: int = 3
    tokens: int = 8

    def __post_init__(self) -> None:
        if min(self.passes, self.prompts, self.tokens) < 1:
            raise UsageError(f"turns {self}: expected at least one pass, prompt and token")


def measure(
    model: Model,
    sizes: Mapping[str, Sequence[int] | None] | Sequence[str] | None = None,
    workload: Workload | None = None,
    place: Place | None = None,
    *,
    turns: Turns | None = None,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> Table:
    """Time every kind of layer of ``model``'s family on a grid of sizes; needs the config, not the weights.

    ``sizes``: public axes to vary, with public sizes; three sizes from the smallest to the present one where none are
    given, more where the config can say few of their combinations. Raises SecateurError when a model cannot run in
    this setting.
    """
    workload, place, turns = workload or Workload(), (place or Place()).resolved(), turns or Turns()
    full = dials(model.anatomy, sizes)
    chosen = _grid(full, sizes)
    timed = _Timed(model, chosen, representative(model), workload, place, turns, clock or clock_for(place.device))
    shapes = schedule(model.anatomy, chosen, full)
    setting = setting_of(model, workload, place)
    for n in range(turns.passes):
        for i, shape in enumerate(shapes[:: -1 if n % 2 else 1]):
            timed.probe(shape)
            if progress is not None:
                progress(n * len(shapes) + i + 1, turns.passes * len(shapes))
    return Table(setting, {d.axis.symbol: d.symbols for d in chosen}, timed.kinds())


def _grid(full: Sequence[Dial], sizes: Mapping[str, Sequence[int] | None] | Sequence[str] | None) -> list[Dial]:
    """The dials to vary: sizes as given, otherwise the smallest, a middle and the largest."""
    given = sizes if isinstance(sizes, Mapping) else {}
    out = []
    for dial in full:
        values = dial.values
        if given.get(dial.axis.name) is None and len(values) > _GRID:
            at = [round(i * (len(values) - 1) / (_GRID - 1)) for i in range(_GRID)]
            values = values[at]
        out.append(Dial(dial.axis, dial.symbols, values))
    return out


class _Timed:
    """Collects seconds by kind, point of the kind's grid, and phase."""

    def __init__(
        self,
        model: Model,
        chosen: Sequence[Dial],
        layers: tuple[int, ...],
        workload: Workload,
        place: Place,
        turns: Turns,
        clock: Clock,
    ) -> None:
        self.model, self.chosen, self.layers = model, chosen, layers
        self.workload, self.place, self.turns, self.clock = workload, place, turns, clock
        self.axes = kinds_of(model.anatomy, chosen)
        self.seconds: dict[tuple[str, tuple[int, ...], str], list[float]] = {}

    def kinds(self) -> dict[str, Kind]:
        """What was collected, as the table keeps it."""
        out = {}
        for name, axes in self.axes.items():
            points = sorted({p for n, p, _ in self.seconds if n == name})
            samples = (Sample(p, *(_spread(self.seconds[name, p, phase]) for phase in PHASES)) for p in points)
            out[name] = Kind(axes, tuple(samples))
        return out

    def probe(self, shape: Mapping[str, int]) -> None:
        """Build the model of one shape, let it take its turns, and note the times."""
        sizes = dict(self.model.anatomy.sizes)
        for dial in self.chosen:
            sizes |= dict.fromkeys(dial.symbols, shape[dial.axis.symbol])
        try:
            whole = build(child_config(self.model.anatomy, sizes, self.layers), self.place)
            with _fast(whole, self.place):
                self._turns(whole, shape, sizes["v"])
        except RuntimeError as e:
            text = ", ".join(f"{n}={v}" for n, v in self.model.anatomy.public_sizes(sizes).items())
            reason = str(e).strip().splitlines()[0]
            raise SecateurError(
                f"a block cannot run on {self.place.device} in {self.place.dtype}: {reason} ({text})",
                hint="choose other sizes, another dtype, or a smaller context",
            ) from e

    def _turns(self, whole: Any, shape: Mapping[str, int], vocabulary: int) -> None:
        generator = torch.Generator().manual_seed(0)
        size = (self.workload.batch, self.workload.context)
        ids = torch.randint(vocabulary, size, generator=generator).to(whole.device)
        with _Marks(decoder_layers(whole, len(self.layers)), self.clock) as marks:
            for turn in range(self.turns.prompts + 1):
                with marks.timing() as prompt:
                    token, out = prefill(whole, ids)
                steps = []
                for _ in range(self.turns.tokens if turn else 1):
                    with marks.timing() as one:
                        token, out = step(whole, token, out)
                    steps.append(one)
                if turn:  # the first only warms up
                    self._note(shape, "prefill", [prompt])
                    self._note(shape, "decode", steps)

    def _note(self, shape: Mapping[str, int], phase: str, timed: Sequence[list[float]]) -> None:
        """``timed``: per forward pass seconds of every layer, then of the rest."""
        kinds = ["+".join(self.model.anatomy.kinds[i]) for i in self.layers]
        for seconds in timed:
            for name, value in zip([*kinds, STEM], seconds, strict=True):
                point = tuple(shape[a] for a in self.axes[name])
                self.seconds.setdefault((name, point, phase), []).append(value)


def build(raw: Mapping[str, Any], place: Place) -> Any:
    """A model of a config with random weights, in evaluation mode."""
    from transformers import AutoModelForCausalLM

    config = effective_config(raw).object
    with quiet(), torch.device(place.device):
        made: Any = AutoModelForCausalLM.from_config(config, dtype=DTYPES[place.dtype])
    return made.requires_grad_(False).eval()


def _fast(whole: Any, place: Place) -> contextlib.AbstractContextManager[Any]:
    from secateur.kernels import fast

    return fast(whole) if place.fast else contextlib.nullcontext()


class _Marks:
    """Hooks that mark when each layer begins and ends."""

    def __init__(self, layers: nn.ModuleList, clock: Clock) -> None:
        self.layers, self.clock = layers, clock
        self.begun: list[Any] = [None] * len(layers)
        self.ended: list[Any] = [None] * len(layers)

    def __enter__(self) -> Self:
        self.handles = []
        for i, layer in enumerate(self.layers):
            self.handles.append(layer.register_forward_pre_hook(partial(self._set, self.begun, i)))
            self.handles.append(layer.register_forward_hook(partial(self._set, self.ended, i)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _set(self, marks: list[Any], i: int, *_: Any) -> None:
        marks[i] = self.clock.mark()

    @contextlib.contextmanager
    def timing(self) -> Iterator[list[float]]:
        """Seconds of every layer, then of all the rest, of the forward pass inside."""
        out: list[float] = []
        start = self.clock.mark()
        yield out
        end = self.clock.mark()
        out += [self.clock.seconds(a, b) for a, b in zip(self.begun, self.ended, strict=True)]
        out.append(max(0.0, self.clock.seconds(start, end) - sum(out)))


def _spread(seconds: Sequence[float]) -> tuple[float, float, float]:
    return min(seconds), statistics.median(seconds), max(seconds)
