"""Run the steps of a recipe whose results are not there, one after another."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from secateur.checkpoint.files import disk_error
from secateur.errors import SecateurError, UsageError
from secateur.recipe.fingerprint import Fingerprints, Note, difference, read_note, state
from secateur.recipe.options import RESULTS
from secateur.recipe.steps import Recipe, Step


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a step runs, and why. ``seconds``: how long it took when it ran last."""

    step: Step
    runs: bool
    why: str
    seconds: float = 0.0


#: Told the position of a step, the number of all, and what becomes of it, before it runs or is skipped.
Progress = Callable[[int, int, Decision], None]


def decide(recipe: Recipe) -> list[Decision]:
    """What would run and why. Reads the disk, changes nothing.

    Raises UsageError when something lies where a result would, which no earlier run of the recipe made.
    """
    prints = Fingerprints()
    return [_decide(recipe, step, prints) for step in recipe.steps]


def _decide(recipe: Recipe, step: Step, prints: Fingerprints) -> Decision:
    note, now = read_note(recipe, step), prints.of(step)
    there = os.path.lexists(step.result)
    if note is None:
        if there:
            raise UsageError(
                f"{recipe.path}, line {step.line}: step {step.name!r} would write {step.result}, which exists and was "
                "not made by this recipe",
                hint="move it away, name another folder with work:, or give the step another name",
            )
        return Decision(step, True, "it has not run yet")
    if note.fingerprint and note.fingerprint != now:
        return Decision(step, True, difference(note.fingerprint, now))
    if note.state == "started":
        if note.fingerprint and there and not RESULTS[step.verb.name]:
            return Decision(step, False, "its result is there")  # checkpoint folders appear whole or not at all
        return Decision(step, True, "it was interrupted")
    if not there:
        return Decision(step, True, "its result is gone")
    if state(step.result) != note.result:
        return Decision(step, True, "its result was changed by someone else")
    return Decision(step, False, "its result is there", note.seconds)


def run_recipe(recipe: Recipe, progress: Progress | None = None) -> Iterator[Decision]:
    """Run or skip each step in order; yields what became of it, with the seconds it took.

    An interrupted run leaves whole results and unfinished ones that the next run goes on with (calibrate and distill)
    or makes again. Raises what the step raises, naming the step; UsageError when the recipe runs elsewhere already.
    """
    decide(recipe)  # refuses before the first step what would be refused at a later one
    try:
        recipe.notes.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise disk_error(e, recipe.notes) from e
    with _alone(recipe):
        prints = Fingerprints()
        for i, step in enumerate(recipe.steps):
            decision = _decide(recipe, step, prints)
            if progress is not None:
                progress(i, len(recipe.steps), decision)
            yield _run(recipe, decision, prints) if decision.runs else decision


def _run(recipe: Recipe, decision: Decision, prints: Fingerprints) -> Decision:
    step, begun = decision.step, time.monotonic()
    now = prints.of(step)
    note = read_note(recipe, step)
    resumes = note is not None and note.state == "started" and note.fingerprint == now
    if not resumes:
        Note("started", {}).write(recipe, step)  # what lies there is ours, and no longer what was asked for
    _clear(recipe, step, resumes=resumes)
    Note("started", now).write(recipe, step)
    try:
        step.verb.run(**step.arguments(journal_path(recipe, step)))
    except SecateurError as e:
        e.message = f"{recipe.path}, line {step.line}, step {step.name!r}: {e.message}"
        raise
    seconds = time.monotonic() - begun
    shutil.rmtree(journal_path(recipe, step), ignore_errors=True)
    Note("done", now, state(step.result), seconds).write(recipe, step)
    return Decision(step, True, decision.why, seconds)


def _clear(recipe: Recipe, step: Step, *, resumes: bool) -> None:
    """Remove what this step left: its result, and its unfinished work unless that is gone on with."""
    leftovers = [step.result, *([] if resumes else [journal_path(recipe, step), _working(step)])]
    try:
        for path in leftovers:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as e:
        raise disk_error(e, step.result) from e


def _working(step: Step) -> Path:
    """Where `distill` keeps an unfinished run."""
    return step.result.with_name(step.result.name + ".work")


def journal_path(recipe: Recipe, step: Step) -> Path:
    """Where `calibrate` keeps an unfinished walk."""
    return recipe.notes / f"{step.name}.journal"


@contextmanager
def _alone(recipe: Recipe) -> Iterator[None]:
    """Hold the recipe's lock; it falls with the process, however that ends."""
    path = recipe.notes / "lock"
    try:
        handle = path.open("w")
    except OSError as e:
        raise disk_error(e, path) from e
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise UsageError(f"{recipe.work}: another run of a recipe is working there", hint="wait for its end") from e
        yield
