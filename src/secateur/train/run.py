"""distill: a cut student, its parent and text in; a healed standard checkpoint out."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from secateur.checkpoint.begun import begin, check_out
from secateur.errors import UsageError
from secateur.evaluation.equality import load_strict
from secateur.kernels import fast
from secateur.model import Model, open_model
from secateur.pruning.provenance import FORMAT, history, versions
from secateur.train import prepare, state
from secateur.train.cache import TeacherCache
from secateur.train.export import export, gathered, on_disk
from secateur.train.held_out import LOSS, WINDOWS, HeldOut, Measurement
from secateur.train.log import METRICS, Log, read_metrics
from secateur.train.loop import Loop, Step, make_optimizer, share
from secateur.train.module import Distiller
from secateur.train.processes import join, leave
from secateur.train.seams import Pairs, layer_pairs, projections
from secateur.train.settings import Settings
from secateur.train.teacher import fill, open_cache
from secateur.train.windows import Windows, write_windows
from secateur.train.zeros import Zeros, sparsified


class Reporter(Protocol):
    """Who is told how the run goes; only the main process's is asked."""

    def note(self, text: str) -> None: ...
    def progress(self, label: str, done: int, total: int) -> None: ...
    def step(self, step: Step, steps: int) -> None: ...


class Silent:
    """Tells nobody."""

    def note(self, text: str) -> None:
        pass

    def progress(self, label: str, done: int, total: int) -> None:
        pass

    def step(self, step: Step, steps: int) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """``out``: the result. ``work``: states, logs and windows of an unfinished run, removed at its end; beside ``out``
    when not given. ``cache``: where a teacher written to disk is kept, for other students too; in ``work`` when not
    given. ``overwrite``: a checkpoint at ``out`` may be replaced. ``restart``: an unfinished run is thrown away.
    ``tensorboard``: also write its event files."""

    out: Path
    work: Path | None = None
    cache: Path | None = None
    overwrite: bool = False
    restart: bool = False
    tensorboard: bool = False

    @property
    def working(self) -> Path:
        return self.work or self.out.absolute().with_name(self.out.name + ".work")


def distill(
    student: str | Path | Model,
    teacher: str | Path | Model | None,
    texts: Sequence[str | Path],
    settings: Settings,
    places: Places,
    *,
    correct_teacher: int = 0,
    held_out: HeldOut | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Model:
    """Train ``student`` on ``texts`` to agree with ``teacher``; returns the healed checkpoint, opened.

    ``teacher`` may be None when ``settings.ce`` is 1. ``correct_teacher``: tokens on which the teacher itself is
    trained first (arXiv 2408.11796). ``held_out``: text to measure on now and then. ``device``: auto, cpu or cuda. A
    run that was interrupted is resumed where its last saved state is, on the same curve. Under ``torchrun`` or
    ``accelerate launch`` every process calls this with the same arguments and shared folders.

    Raises UsageError for what does not fit together, CheckpointError for the disk, TrainingError when the loss is not
    finite.
    """
    if teacher is None and settings.ce != 1:
        raise UsageError("no teacher is given", hint="name one with --teacher, or train on the text alone with --ce 1")
    if places.cache is not None and settings.top_k is None:
        raise UsageError("--cache is given without --top-k: how many tokens of the teacher shall it keep?")
    accelerator = join(bf16=settings.bf16, device=device)
    try:
        told = reporter if reporter is not None and accelerator.is_main_process else Silent()
        Run(accelerator, student, teacher, texts, settings, places, correct_teacher, held_out, told).run()
    finally:
        leave(accelerator)
    return open_model(places.out)


def _opened(source: str | Path | Model) -> Model:
    return source if isinstance(source, Model) else open_model(source)


class Run:
    """One call of :func:`distill`, stage after stage. Every process goes through the same stages."""

    def __init__(
        self,
        accelerator: Any,
        student: str | Path | Model,
        teacher: str | Path | Model | None,
        texts: Sequence[str | Path],
        settings: Settings,
        places: Places,
        correct: int,
        held_out: HeldOut | None,
        reporter: Reporter,
    ) -> None:
        check_out(places.out, overwrite=places.overwrite)
        self.accelerator, self.texts, self.settings, self.places = accelerator, list(texts), settings, places
        self.correct, self.held_out, self.reporter, self.work = correct, held_out, reporter, places.working
        self.student = _opened(student)
        self.teacher = None if teacher is None or settings.ce == 1 else _opened(teacher)
        self.main: bool = accelerator.is_main_process
        share(settings, accelerator.num_processes, 0)
        if self.teacher is not None:
            prepare.check_pair(self.student, self.teacher)
        elif correct:
            raise UsageError("there is no teacher to correct")
        self.tokenizer = prepare.usable_tokenizer(self.student)

    def run(self) -> None:
        self.begin()
        self.correct_teacher()
        cache = self.cache()
        torch.manual_seed(self.settings.seed)
        module = self.module(cache)
        with contextlib.ExitStack() as stack:
            for model in filter(None, (module.student, module.teacher)):
                stack.enter_context(fast(model))
            self.train(module, cache)
        self.finish(module)

    def begin(self) -> None:
        """Work folder and windows, by the main process."""
        if self.main:
            models = {"student": self.student, "teacher": self.teacher}
            self.sums = {role: prepare.digests(model) for role, model in models.items() if model is not None}
            identity = {
                "settings": self.settings.to_json(),
                "texts": list(map(str, self.texts)),
                "files": self.sums,
                "correct_teacher": self.correct,
                "processes": self.accelerator.num_processes,
            }
            if self.held_out is not None:
                identity["held_out"] = self.held_out.to_json()
            begin(self.work, identity, restart=self.places.restart)
            self.reporter.note(f"packing {self.settings.steps * self.settings.batch:,} windows of text")
            vocabulary = self.student.anatomy.sizes["v"]
            packing = self.tokenizer, self.settings, vocabulary
            write_windows(self.work / "windows", self.texts, *packing)
            if self.held_out is not None:
                write_windows(self.work / "held_out", self.held_out.texts, *packing, most=WINDOWS)
        self.accelerator.wait_for_everyone()
        self.windows = Windows(self.work / "windows")

    def correct_teacher(self) -> None:
        """Train the teacher on the text first; it becomes a checkpoint in the work folder."""
        if not self.correct or self.teacher is None:
            return
        out = self.work / "teacher"
        if not out.exists():
            self.reporter.note(f"correcting the teacher on {self.correct:,} tokens")
            settings = replace(self.settings, tokens=self.correct, ce=1.0, hidden=None, hidden_layers=(), top_k=None)
            teacher, places = self.teacher.folder, Places(out=out)
            Run(self.accelerator, teacher, None, self.texts, settings, places, 0, None, self.reporter).run()
            self.accelerator.free_memory()
        self.teacher = open_model(out)

    def cache(self) -> TeacherCache | None:
        """The teacher on disk, filled, where asked."""
        if self.settings.top_k is None or self.teacher is None:
            return None
        folder, teacher = self.places.cache or self.work / "cache", self.teacher
        sums, vocabulary = prepare.digests(teacher), teacher.anatomy.sizes["v"]
        cache = open_cache(folder, self.settings, self.windows, vocabulary, sums)
        if cache.missing():
            self.reporter.note(f"caching the teacher takes {cache.layout.nbytes:,} bytes in {folder}")
        fill(
            self.accelerator,
            cache,
            lambda: load_strict(teacher.folder),
            self.windows,
            self.settings,
            lambda done, total: self.reporter.progress("caching the teacher", done, total),
        )
        return cache

    def module(self, cache: TeacherCache | None) -> Distiller:
        """Student and teacher in float32, with what the hidden-state loss needs."""
        student = load_strict(self.student.folder)
        teacher = None if self.teacher is None or cache is not None else load_strict(self.teacher.folder)
        pairs: Pairs = ()
        maps = None
        if self.settings.hidden is not None and self.teacher is not None:
            depths = self.student.anatomy.n_layers, self.teacher.anatomy.n_layers
            pairs = layer_pairs(history(self.student), *depths, self.settings.hidden_layers)
            maps = projections(pairs, self.student.anatomy.sizes["d"], self.teacher.anatomy.sizes["d"])
        return Distiller(student, teacher, self.settings, pairs, maps)

    def train(self, module: Distiller, cache: TeacherCache | None) -> None:
        """From the last saved state to the last step."""
        accelerator = self.accelerator
        prepared, optimizer = accelerator.prepare(module, make_optimizer(module, self.settings))
        loop = Loop(accelerator, prepared, optimizer, self.windows, self.settings, self.work, cache)
        if self.held_out is not None:
            windows, at_hand = Windows(self.work / "held_out"), module.teacher is not None
            loop.measured = Measurement(
                accelerator, prepared, windows, self.settings, self.held_out, divergence=at_hand
            )
        loop.zeros = Zeros(module.student, sparsified(history(self.student)))
        if len(loop.zeros):
            self.reporter.note(f"zeros of {len(loop.zeros)} sparse parameters stay zero")
        saved = state.latest(self.work)
        start = 0 if saved is None else state.load(accelerator, saved, loop.inner, optimizer)
        if start:
            self.reporter.note(f"resuming after step {start} of {self.settings.steps}")
        log = Log(self.work, start, tensorboard=self.places.tensorboard) if self.main else None
        try:
            loop.run(start, log, lambda step: self.reporter.step(step, self.settings.steps))
        finally:
            if log is not None:
                log.close()

    def finish(self, module: Distiller) -> None:
        """Publish the student and remove the work folder."""
        found = gathered(module.student, main=self.main)
        if self.main:
            extra = {METRICS: self.work / METRICS, "tensorboard": self.work / "tensorboard"}
            tensors, record = on_disk(module.student, found), self.record()
            export(self.student, tensors, self.places.out, record, extra=extra, overwrite=self.places.overwrite)
            shutil.rmtree(self.work, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def record(self) -> dict[str, Any]:
        """What secateur.json says; ``before`` holds how the student itself was made."""
        lines = read_metrics(self.work / METRICS)
        curve = [line for line in lines if line["step"]]
        measured = [line for line in lines if LOSS in line]
        held_out = {"held_out": {"first": measured[0][LOSS], "last": measured[-1][LOSS]}} if measured else {}
        return {
            "secateur": FORMAT,
            "step": "distill",
            "versions": versions(),
            "student": {"source": self.student.source, "sha256": self.sums["student"]},
            "teacher": self.teacher_record(),
            "settings": self.settings.to_json(),
            "texts": list(map(str, self.texts)),
            "held_out": None if self.held_out is None else self.held_out.to_json(),
            "processes": self.accelerator.num_processes,
            "result": {"steps": len(curve), "first": curve[0], "last": curve[-1], **held_out},
            "before": history(self.student),
        }

    def teacher_record(self) -> dict[str, Any] | None:
        if self.teacher is None:
            return None
        return {"source": self.teacher.source, "sha256": self.sums["teacher"], "corrected_tokens": self.correct}
