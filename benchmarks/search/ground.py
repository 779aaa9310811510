"""What all units share: the parent, the text, and how a shape is healed and judged."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.common import drive

from secateur.calibration.text import windows_of
from secateur.model import Model, open_model
from secateur.search.bench import Bench, built
from secateur.search.dials import dials
from secateur.search.heal import heal
from secateur.search.stages import Shape, Stage

LENGTH = 256
#: Windows of held-out text that decide, and fewer that the curve on the way is read on.
JUDGED, GLANCED = 32, 4
#: Axes that are searched where a model has them: those that NVIDIA's search turns.
AXES = ("hidden", "ffn", "kv_heads", "ssm_heads", "ssm_head_dim", "experts", "expert_ffn")


@dataclass(frozen=True)
class Ground:
    """``name``: what the tables call the parent. ``text`` to search and heal on, ``held_out`` to judge on."""

    parent: Path
    name: str
    text: tuple[Path, ...]
    held_out: tuple[Path, ...]
    work: Path

    @cached_property
    def model(self) -> Model:
        return open_model(self.parent)

    @cached_property
    def digest(self) -> str:
        """Names the parent's weights in every result."""
        return drive.digest(self.parent)

    @cached_property
    def axes(self) -> list[str]:
        """Those of AXES that the config can resize."""
        return [d.axis.name for d in dials(self.model.anatomy) if d.axis.name in AXES]

    def healed(self, shape: Shape, bench: Bench, tokens: int, every: int) -> dict[str, Any]:
        """``shape`` distilled on ``tokens`` of the lessons and judged on the bench's windows, which are held out."""
        everything = range(len(bench.windows))
        glance = Stage("judge", tuple(range(GLANCED)), heal=tokens)
        bench.parent.ask(everything)
        curve: list[tuple[int, float]] = []

        with built(shape, bench, glance) as module:
            before = bench.compare(module, everything)

            def look(done: int) -> None:
                if done % every == 0:
                    curve.append((done, bench.compare(module, glance.windows)[0]))

            began = time.perf_counter()
            heal(module, bench, tokens, watch=look)
            seconds = time.perf_counter() - began
            kl, nll = bench.compare(module, everything)
        return {"cut_kl": before[0], "cut_loss": before[1], "kl": kl, "loss": nll, "curve": curve, "seconds": seconds}

    def judge(self, seed: int, lessons: int, search: Bench) -> Bench:
        """Held-out windows and fresh training text, with the statistics the search used."""
        held_out = windows_of(self.model, self.held_out, samples=JUDGED, length=LENGTH, seed=0)
        train = windows_of(self.model, self.text, samples=lessons, length=LENGTH, seed=1000 + seed)
        return Bench(self.model, held_out, lessons=train, stats=search.stats, criterion=search.criterion, seed=seed)
