"""Recipes that run: what is skipped, what runs again, and what an interruption leaves."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from secateur.calibration import journal
from secateur.cli import recipe as verb
from secateur.errors import UsageError
from secateur.pruning.repair import run as repairing
from secateur.recipe.execute import Decision, decide, run_recipe
from secateur.recipe.fingerprint import read_note
from secateur.recipe.options import verbs
from secateur.recipe.steps import load_recipe
from tests.cli.command import done, refused, secateur, tree

ALL = ["calibrate", "plan", "prune", "repair", "eval"]


def ran(place: Path) -> list[str]:
    return [d.step.name for d in run_recipe(load_recipe(place / "recipe.yaml")) if d.runs]


def would_run(place: Path) -> dict[str, str]:
    return {d.step.name: d.why for d in decide(load_recipe(place / "recipe.yaml")) if d.runs}


def change(place: Path, old: str, new: str) -> None:
    text = (place / "recipe.yaml").read_text()
    assert old in text
    (place / "recipe.yaml").write_text(text.replace(old, new))


def results(place: Path) -> dict[str, str]:
    return {n: d for n, d in tree(place / "out").items() if not n.startswith(".recipe")}


def test_the_road_and_what_runs_again(place: Path) -> None:
    recipe = place / "recipe.yaml"
    before = tree(place)
    text = done("run", recipe, "--dry-run").out
    assert text.count("would run") == 5 and "has not run yet" in text
    assert tree(place) == before, "a dry run changed the disk"

    text = done("run", recipe).out
    rows = [line.split() for line in text.splitlines()]
    assert [row[0] for row in rows if row[1:2] == ["ran"]] == ALL
    made = results(place)
    assert {p.split("/")[0] for p in made} == {"calibrate.safetensors", "plan.json", "prune", "repair", "eval.json"}
    names = [m["name"] for m in json.loads((place / "out" / "eval.json").read_text())["models"]]
    assert names == ["parent", "prune", "repair"]
    record = json.loads((place / "out" / "repair" / "secateur.json").read_text())
    assert record["repair"]["windows"] == [16, 16]

    text = done("run", recipe).out
    assert text.count("skipped: its result is there") == 5
    assert results(place) == made

    change(place, "batch: 4", "batch: 2")
    assert would_run(place) == {"repair": "setting batch: 4 -> 2", "eval": "input models changed"}
    assert ran(place) == ["repair", "eval"]
    change(place, "batch: 2", "batch: 2, feedback: true")  # what it was by default
    assert would_run(place) == {}
    change(place, "samples: 8", "samples: 9")
    assert list(would_run(place)) == ["calibrate", "prune", "repair", "eval"]
    change(place, "samples: 9", "samples: 8")
    change(place, "window: 32", "window: 16")
    assert ran(place) == ["eval"]

    (place / "text" / "b.txt").write_text("more text")
    assert would_run(place)["calibrate"] == "input text changed"
    (place / "text" / "b.txt").unlink()
    (place / "out" / "plan.json").unlink()
    assert would_run(place) == {"plan": "its result is gone"}
    assert ran(place) == ["plan"]
    (place / "out" / "prune" / "config.json").write_text("{}")
    assert would_run(place) == {"prune": "its result was changed by someone else"}


def test_new_versions_run_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "recipe.yaml").write_text("work: out\nsteps: [{plan: {model: parent, params: 60%}}]")
    assert ran(place) == ["plan"]
    monkeypatch.setattr("secateur.recipe.fingerprint.versions", lambda: {"secateur": "9"})
    assert "version of secateur: " in would_run(place)["plan"]


def test_what_lies_in_the_way_is_never_touched(place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "plan.json").write_text("years of work")
    before = tree(place)
    message = refused("run", place / "recipe.yaml", says="not made by this recipe")
    assert "line 8" in message and "'plan'" in message
    refused("run", place / "recipe.yaml", "--dry-run", says="not made by this recipe")
    assert tree(place) == before


def test_a_failing_step_is_named_and_gone_on_with(place: Path) -> None:
    change(place, "score: activation", "score: actvation")
    result = secateur("run", place / "recipe.yaml")
    assert result.code == 2 and "step 'prune'" in result.err and "line 9" in result.err and "actvation" in result.err
    assert "calibrate" in result.out and not (place / "out" / "prune").exists()
    change(place, "score: actvation", "score: activation")
    assert ran(place) == ["prune", "repair", "eval"]


def test_names_of_steps(place: Path) -> None:
    (place / "recipe.yaml").write_text(
        "inputs: {parent: ./parent}\n"
        "steps:\n"
        "  - prune: {name: small, model: parent, params: 60%}\n"
        "  - prune: {name: smaller, model: small, keep: ffn=16, score: first}\n"
    )
    assert ran(place) == ["small", "smaller"]
    record = json.loads((place / "recipe" / "smaller" / "secateur.json").read_text())
    assert record["parent"]["source"] == str(place / "recipe" / "small")
    assert record["settings"]["score"] == "first"


def test_healing_and_the_page(place: Path) -> None:
    """The rest of the road; a teacher kept on disk by the step itself does not make it run again."""
    (place / "recipe.yaml").write_text(
        "inputs: {parent: ./parent}\n"
        "steps:\n"
        "  - prune: {model: parent, keep: ffn=20}\n"
        "  - distill: {student: prune, teacher: parent, text: text/, tokens: 512, length: 16, batch: 4,\n"
        "              lr: 1e-4, micro_batch: 4, top_k: 8, cache: ./teacher}\n"
        "  - eval: {models: [prune, distill], parent: parent, text: heldout.txt, window: 32}\n"
        "  - report: {sources: eval}\n"
    )
    assert ran(place) == ["prune", "distill", "eval", "report"]
    assert (place / "teacher").is_dir()
    assert would_run(place) == {}
    made = {p.name for p in (place / "recipe").iterdir()}
    assert made == {".recipe", "prune", "distill", "eval.json", "report.html"}


@pytest.mark.parametrize("verb", verbs())
def test_options_are_those_of_the_command_line(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    text, signature = done(verb, "--help").out, inspect.signature(verbs()[verb].run)
    options = verbs()[verb].options
    assert {o.parameter for o in options.values()} == set(signature.parameters)
    for key, option in options.items():
        plain = f"--{key.replace('_', '-')}"
        assert plain in text or (option.required and option.model), key
        assert option.required == (signature.parameters[option.parameter].default is inspect.Parameter.empty)


# ---- interruptions ------------------------------------------------------------------------------------------------


def test_kill_in_the_middle(place: Path) -> None:
    """kill -9 while the child is being written: nothing half-written counts, and the next run goes on."""
    code = (
        "import os, signal, sys, secateur.pruning.run as r\n"
        "r._write_files = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from secateur.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    paths = os.pathsep.join(p for p in sys.path if p)
    got = subprocess.run(
        [sys.executable, "-c", code, "run", str(place / "recipe.yaml")],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert got.returncode == -signal.SIGKILL, got.stderr
    assert not (place / "out" / "prune").exists()
    kept = results(place)
    assert {"calibrate.safetensors", "plan.json"} <= kept.keys()
    assert would_run(place)["prune"] == "it was interrupted"
    assert ran(place) == ["prune", "repair", "eval"]
    made = results(place)
    assert all(made[n] == kept[n] for n in ("calibrate.safetensors", "plan.json"))
    assert not [n for n in made if n.startswith(".secateur")], "the dead run's staging folder is still there"


def test_an_interrupted_calibration_resumes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "EVERY_SECONDS", 0.0)
    resumed = []
    plain, save = journal.WalkJournal.resume, journal.WalkJournal.save
    monkeypatch.setattr(journal.WalkJournal, "resume", lambda *a: resumed.append(plain(*a)) or resumed[-1])

    def stop(self: journal.WalkJournal, layer: int, *rest: object, **more: object) -> None:
        save(self, layer, *rest, **more)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(journal.WalkJournal, "save", stop)
        assert secateur("run", place / "recipe.yaml").code == 130
    assert results(place) == {}
    change(place, "batch: 4", "batch: 2")  # another step's setting leaves the journal alone
    assert ran(place) == ALL
    assert resumed[:2] == [0, 1]
    assert not [p for p in (place / "out" / ".recipe").iterdir() if p.suffix == ".journal"]


def test_a_killed_overwrite_is_remembered_as_ours(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting changed, the old result still there, and the run dies before it is removed."""
    assert ran(place) == ALL
    change(place, "batch: 4", "batch: 2")
    with monkeypatch.context() as m:
        m.setattr("secateur.recipe.execute._clear", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ran(place)
    assert would_run(place)["repair"] == "it was interrupted"
    assert ran(place) == ["repair", "eval"]
    assert would_run(place) == {}


def test_a_child_that_was_whole_when_the_run_died_is_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = repairing.repair

    def die(*args: object, **kwargs: object) -> None:
        plain(*args, **kwargs)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(repairing, "repair", die)
        assert secateur("run", place / "recipe.yaml").code == 130
    assert would_run(place) == {"eval": "it has not run yet"}


def test_unfinished_work_stays_for_the_same_settings_only(place: Path) -> None:
    recipe = place / "recipe.yaml"
    text = (
        "inputs: {parent: ./parent}\nsteps: [{distill: {student: parent, teacher: parent, text: ./text, tokens: 1k}}]"
    )
    recipe.write_text(text)
    step, working = load_recipe(recipe).steps[0], place / "recipe" / "distill.work"
    seen = []

    def die(**given: object) -> None:
        assert given["save"] == step.result and given["tokens"] == "1k"
        seen.append(working.is_dir())
        working.mkdir(parents=True, exist_ok=True)
        raise KeyboardInterrupt

    def attempt() -> None:
        loaded = load_recipe(recipe)
        object.__setattr__(loaded.steps[0].verb, "run", die)
        with pytest.raises(KeyboardInterrupt):
            list(run_recipe(loaded))

    run = step.verb.run
    try:
        attempt()
        attempt()
        recipe.write_text(text.replace("1k", "1k, lr: 1e-5"))
        attempt()
    finally:
        object.__setattr__(step.verb, "run", run)
    assert seen == [False, True, False]


def test_two_runs_at_once(place: Path) -> None:
    first = run_recipe(load_recipe(place / "recipe.yaml"))
    assert next(first).step.name == "calibrate"
    with pytest.raises(UsageError, match="another run"):
        next(run_recipe(load_recipe(place / "recipe.yaml")))
    first.close()


def test_a_damaged_note_does_not_hide_what_is_there(place: Path) -> None:
    (place / "recipe.yaml").write_text("work: out\nsteps: [{plan: {model: parent, params: 60%}}]")
    assert ran(place) == ["plan"]
    loaded = load_recipe(place / "recipe.yaml")
    for text in ("", "{", "[]", '{"a": 1}', "null"):
        (place / "out" / ".recipe" / "plan.json").write_text(text)
        assert read_note(loaded, loaded.steps[0]) is None
        with pytest.raises(UsageError, match="not made by this recipe"):
            decide(loaded)


def test_the_example_is_read(place: Path) -> None:
    example = Path(__file__).parents[2] / "docs" / "recipes" / "halve.yaml"
    (place / "parent").rename(place / "checkpoint")
    (place / "text").rename(place / "books")
    (place / "recipe.yaml").write_text(example.read_text())
    found: list[Decision] = decide(load_recipe(place / "recipe.yaml"))
    assert [d.step.verb.name for d in found] == ["calibrate", "plan", "prune", "repair", "distill", "eval", "report"]
    assert found[4].step.settings["lr"] == 2e-4 and found[4].step.settings["tokens"] == "20M"
    verb.print_plan(found)
