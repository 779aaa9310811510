"""One healing run through the library, with the held-out loss looked at on the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.common.units import read
from benchmarks.halving.bench import Bench
from benchmarks.halving.text import write_passages

from secateur.train.loop import Step
from secateur.train.module import Distiller
from secateur.train.processes import join, leave
from secateur.train.run import Places, Run, Silent
from secateur.train.settings import Settings


class Watch(Silent):
    """Scores the student whenever another ``every`` tokens are done, and keeps the curve in a file, which a resumed
    run goes on with."""

    def __init__(self, bench: Bench, every: int, file: Path) -> None:
        self.bench, self.every, self.file = bench, every, file
        self.student: Any = None
        self.curve = {line["tokens"]: line["loss"] for line in read(file)}
        self.seconds = 0.0

    def step(self, step: Step, steps: int) -> None:
        self.seconds = step.seconds
        before = step.tokens - step.tokens // step.step
        if step.tokens // self.every > before // self.every and step.step < steps:
            self.add(step.tokens)

    def add(self, tokens: int) -> None:
        if tokens not in self.curve:
            self.curve[tokens] = self.bench.score(self.student)["loss"]
            with self.file.open("a") as file:
                file.write(json.dumps({"tokens": tokens, "loss": self.curve[tokens]}) + "\n")


class Watched(Run):
    """A run whose student somebody looks at."""

    watch: Watch

    def module(self, cache: Any) -> Distiller:
        built = super().module(cache)
        self.watch.student = built.student
        self.watch.add(0)
        return built


def heal(
    bench: Bench, student: Path, teacher: Path | None, settings: Settings, every: int, work: Path
) -> dict[str, Any]:
    """Loss on the judging rows before, on the way and after. ``work`` is removed at the end."""
    work.mkdir(parents=True, exist_ok=True)
    rows = settings.steps * settings.batch * settings.length
    text = write_passages(bench.data, settings.seed, rows, bench.work / f"passages-{settings.seed}-{rows}.txt")
    watch, accelerator = Watch(bench, every, work / "curve.jsonl"), join(bf16=settings.bf16)
    places = Places(out=work / "healed", work=work / "run", overwrite=True)
    try:
        run = Watched(accelerator, student, teacher, [text], settings, places, 0, None, watch)
        run.watch = watch
        run.run()
    finally:
        leave(accelerator)
    after = bench.score_folder(work / "healed")
    curve = [*sorted(watch.curve.items()), (rows, after["loss"])]
    shutil.rmtree(work)
    return {**after, "before": curve[0][1], "trained_tokens": rows, "curve": curve, "training_seconds": watch.seconds}
