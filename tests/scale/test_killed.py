"""Kill -9 in every stage of the road, at drawn places: the same command goes on, and the result is the same to the bit.

Each stage has places where it does its work (a layer, a step) and where it writes down how far it is; it is killed
before and after both. That the second run goes on and does not begin anew is seen in how much work it does.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.cli.command import tree
from tests.evaluate.models import TEXT, hybrid
from tests.thorough import trials

from .killed import Place, Trap

LAYERS = 5
LAYER = Trap("secateur.calibration.walker", "_one_layer")
VISIT = Trap("secateur.pruning.repair.layer", "LayerRepair.__call__")
STEP = Trap("secateur.train.loop", "Loop.take")
JOURNAL = Trap("secateur.calibration.journal", "write_tensors", after=False)
STATE = Trap("secateur.train.state", "_write", after=False)
WINDOWS = ["--samples", "8", "--length", "16", "--batch", "2"]


@dataclass(frozen=True)
class Stage:
    """``work``: what is counted, ``times`` of it in a whole run; ``more``: other places to be killed at, with how often
    they are passed; ``result``: what must be equal."""

    argv: list[str]
    out: Path
    work: Trap
    times: int
    more: dict[Trap, int]
    result: Callable[[Path], Any]
    redone: int = 1


def checkpoint(folder: Path) -> Any:
    return tree(folder)


def healed(folder: Path) -> Any:
    """Weights and the curve; seconds and paths of the log are of the run."""
    curve = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    values = [[line[k] for k in ("step", "loss", "gradient_norm", "lr")] for line in curve]
    return values, {n: t.numpy().tobytes() for n, t in load_file(folder / "model.safetensors").items()}


def file(path: Path) -> Any:
    return path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def stages(place: Place) -> dict[str, Stage]:
    """The road on a tiny hybrid, each stage on what an undisturbed run of those before it left."""
    at = place.folder
    parent, text = str(hybrid(at / "parent")), at / "text.txt"
    text.write_text(TEXT)
    given, stats = ["--text", str(text)], at / "stats.safetensors"
    child, repaired, journal = at / "child", at / "repaired", ["--journal", str(at / "journal")]
    cut = ["prune", parent, "--keep", "ffn=24,ssm_heads=4,hidden=16", "--stats", str(stats), "--out", str(child)]
    fit = ["repair", str(child), "--parent", parent, *given, *WINDOWS, *journal, "--out", str(repaired)]
    measure = [
        "eval",
        str(repaired),
        "--parent",
        parent,
        *given,
        "--window",
        "32",
        "--batch",
        "4",
        "--stream",
        *journal,
    ]
    heal = ["distill", str(repaired), "--teacher", parent, *given, "--tokens", "640", "--length", "16", "--batch", "4"]
    heal += ["--save-every", "2", "--repeat", "--out", str(at / "healed")]
    found = {
        "calibrate": Stage(
            ["calibrate", parent, *given, *WINDOWS, *journal, "--out", str(stats)],
            stats, LAYER, LAYERS, {JOURNAL: LAYERS}, file,
        ),
        "prune": Stage(cut, child, Trap("secateur.checkpoint.writer", "_pieces"), 30, {}, checkpoint, redone=30),
        "repair": Stage(fit, repaired, VISIT, LAYERS, {JOURNAL: LAYERS}, checkpoint),
        "eval": Stage(
            [*measure, "--out", str(at / "results.json")],
            at / "results.json", LAYER, 2 * LAYERS, {JOURNAL: 2 * LAYERS}, file,
        ),
        "distill": Stage(heal, at / "healed", STEP, 10, {STATE: 5}, healed, redone=3),
    }  # fmt: skip
    for name in ("calibrate", "prune", "repair"):
        place.done(found[name].argv)
    return found


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "name", ["calibrate", "distill", *(pytest.param(n, marks=pytest.mark.long) for n in ("prune", "repair", "eval"))]
)
def test_killed_anywhere_and_run_again(name: str, stages: dict[str, Stage], place: Place) -> None:
    stage, draw = stages[name], random.Random(name)
    remove(stage.out)
    place.done(stage.argv, stage.work)
    want = stage.result(stage.out)
    assert place.calls >= stage.times
    places = [(replace(stage.work, count=n), n) for n in sorted(draw.sample(range(1, stage.times + 1), trials(1, 3)))]
    places += [(replace(trap, count=draw.randint(1, n)), None) for trap, n in stage.more.items()]
    for trap, done in places:
        remove(stage.out)
        place.killed(stage.argv, trap)
        assert not stage.out.exists(), "a run that died left a result"
        place.done(stage.argv, stage.work)
        assert stage.result(stage.out) == want, f"killed at {trap}"
        if done is not None and name != "prune":
            assert place.calls <= stage.times - done + stage.redone, "the second run began anew"
    left = {p.name for p in place.folder.iterdir() if p.name.startswith((".secateur", "journal", f"{stage.out.name}."))}
    assert left <= {"journal"} and not list((place.folder / "journal").glob("*")), "the finished run left its journal"


@pytest.mark.long
def test_killed_twice_in_a_row(stages: dict[str, Stage], place: Place) -> None:
    for name in ("calibrate", "repair"):
        stage = stages[name]
        remove(stage.out)
        place.done(stage.argv)
        want = stage.result(stage.out)
        remove(stage.out)
        place.killed(stage.argv, replace(stage.work, count=2))
        place.killed(stage.argv, replace(stage.work, count=2))
        place.killed(stage.argv, replace(JOURNAL, count=1))
        place.done(stage.argv)
        assert stage.result(stage.out) == want


def test_a_journal_of_other_text_or_weights_is_not_resumed(stages: dict[str, Stage], place: Place) -> None:
    stage = stages["calibrate"]
    remove(stage.out)
    place.killed(stage.argv, replace(LAYER, count=4))
    other = ["--seed", "1" if "--seed" not in stage.argv else "2"]
    place.done([*stage.argv, *other], LAYER)
    assert place.calls == LAYERS
    remove(stage.out)
    place.killed(stage.argv, replace(LAYER, count=4))
    weights = place.folder / "parent" / "model.safetensors"
    weights.touch()
    place.done(stage.argv, LAYER)
    assert place.calls == LAYERS
