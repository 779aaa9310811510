"""Recipes that are wrong: each ends in one UsageError that says where, before anything has run."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from secateur.errors import UsageError
from secateur.recipe.options import MADE, MANAGED, verbs
from secateur.recipe.steps import load_recipe
from tests.cli.command import refused

from .conftest import RECIPE

GOOD: dict[str, Any] = yaml.safe_load(RECIPE)
PLACES = [(i, verb, key) for i, step in enumerate(GOOD["steps"]) for verb, body in step.items() for key in body]
SLOW = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def error(place: Path, text: str) -> UsageError:
    """The refusal of a recipe; it names the file."""
    file = place / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_recipe(file)
    assert str(file) in caught.value.message
    assert not (place / "out").exists() and not (place / "bad").exists()
    return caught.value


@pytest.mark.parametrize(
    ("old", "new", "says", "hint"),
    [
        ("samples: 8", "sampels: 8", "step 'calibrate', sampels: unknown key", "did you mean 'samples'?"),
        ("samples: 8", "samples: many", "samples: 'many', expected a whole number from 1", None),
        ("samples: 8", "samples: 1.5", "samples: '1.5', expected a whole number", None),
        ("samples: 8", "samples: 0", "samples: '0', expected a whole number from 1", None),
        ("samples: 8", "samples: [8, 9]", "samples: a list, expected one value", None),
        ("samples: 8", "samples: {a: b}", "'samples' is nested", None),
        ("samples: 8", "samples: ", "'samples' is empty", "leave the key out"),
        ("samples: 8", "samples: 8, samples: 9", "calibrate: 'samples' is given twice", None),
        ("samples: 8", "dtype: bfloat6", "dtype: 'bfloat6', expected one of float32, bfloat16", "'bfloat16'"),
        ("batch: 4", "batch: 4, feedback: maybe", "feedback: 'maybe', expected true or false", None),
        ("batch: 4", "damp: -1", "damp: '-1', expected a number from 0", None),
        ("batch: 4", "damp: nan", "damp: 'nan', expected a number", None),
        ("batch: 4", "out: ./x", "step 'repair', out: is decided by the recipe", None),
        ("batch: 4", "colour: red", "colour: unknown key", "expected one of child, parent"),
        ("child: prune, ", "", "step 'repair', child: is missing", "secateur repair --help"),
        ("child: prune", "child: prume", "'prume' is neither an input, nor an earlier step", "did you mean 'prune'?"),
        ("child: prune", "child: eval", "'eval' is no earlier step", "in order"),
        ("child: prune", "child: repair", "'repair' is no earlier step", "in order"),
        ("child: prune", "child: calibrate", "is the result of calibrate, expected the result of prune or", None),
        ("stats: calibrate", "stats: plan", "'plan' is the result of plan, expected the result of calibrate", None),
        ("text: heldout", "text: prune", "expected a file or an input, no step", None),
        ("text: heldout", "text: heldaut", "'heldaut' is neither", "did you mean 'heldout'?"),
        ("stats: calibrate", "stats: owner/name", "'owner/name' is neither", None),
        ("model: parent, text", "model: [parent, parent], text", "model: 2 values, expected one", None),
        ("- plan:", "- paln:", "unknown verb 'paln', expected one of calibrate, plan", "did you mean 'plan'?"),
        ("- plan:", "- calibrate:", "the name 'calibrate' is taken by the step in line 7", "name: ..."),
        ("- plan: {model: parent, params: 60%}", "- plan: {}\n    extra: {}", "a step with 2 keys (plan, extra)", None),
        ("{model: parent, params", "{name: books, model: parent, params", "'books' is taken by an input", None),
        ("{model: parent, params", "{name: ../x, model: parent, params", "the name '../x': expected letters", None),
        ("{model: parent, params", "{name: [x], model: parent, params", "the name of step 'plan' is a list", None),
        ("./parent", "text/parent", "'text/parent' is neither", None),
        ("./parent", "./parents", "'./parents' is neither", None),
        ("work:", "wrok:", "unknown key 'wrok', expected one of work, inputs, steps", "did you mean 'work'?"),
        ("work: out", "work: heldout.txt", "cannot be a folder", None),
        ("work: out", f"work: {'x' * 300}", "cannot be a folder", None),
        ("steps:", "step:", "unknown key 'step'", "'steps'"),
        ("- plan: {model: parent, params: 60%}", "- plan", "a step: expected one verb", None),
        ("- plan: {model: parent, params: 60%}", "- plan: 60%", "plan: expected options", None),
        ("- plan: {model: parent, params: 60%}", "- [plan]", "a step: expected one verb", None),
        ("- plan: {model: parent, params: 60%}", "- plan: {<<: {model: parent}}", "is nested", None),
        ("[text/]", "[]", "input 'books' is an empty list", None),
        ("[text/]", "[[text/]]", "input 'books' is nested", None),
        ("[text/]", "{a: b}", "input 'books' is nested", None),
        ("steps:", "steps: [", "no YAML", None),
    ],
)
def test_wrong(old: str, new: str, says: str, hint: str | None, place: Path) -> None:
    assert old in RECIPE
    text = RECIPE.replace(old, new, 1)
    found = error(place, text)
    assert says in found.message
    assert hint is None or (found.hint and hint in found.hint), found.hint
    if says != "no YAML":
        pairs = zip(RECIPE.splitlines(), text.splitlines(), strict=False)
        line = next(i for i, (one, other) in enumerate(pairs, 1) if one != other)
        assert f"line {line}:" in found.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected work, inputs and steps"),
        ("steps", "expected work, inputs and steps"),
        ("- plan", "expected work, inputs and steps"),
        ("work: out", "no steps"),
        ("steps:", "no list of verbs"),
        ("steps: {plan: {}}", "no list of verbs"),
        ("steps: []", "no list of verbs"),
        ("steps: [{plan: }]", "model: is missing"),
        ("steps: [{}]", "a step with 0 keys"),
        ("? [a]\n: b", "no word"),
        ("steps: &a [*a]", "a step: expected"),
        ("a: *b", "no YAML"),
        ("steps: []\n---\nsteps: []", "no YAML"),
        ("\x07", "no YAML"),
        ("[" * 5000, "nested too deeply"),
        ("x" * (1 << 21), "more than"),
    ],
)
def test_no_recipe_at_all(text: str, says: str, place: Path) -> None:
    assert says in error(place, text).message


def test_files_that_cannot_be_read(place: Path) -> None:
    (place / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("binary.yaml", "none.yaml", "parent"):
        assert name in refused("run", place / name, says="cannot read the recipe")
    refused("run", says="Missing argument")


def test_nothing_runs_before_the_last_line_is_checked(place: Path) -> None:
    (place / "recipe.yaml").write_text(RECIPE.replace("window: 32", "window: wide"))
    message = refused("run", place / "recipe.yaml", says="window: 'wide'")
    assert "step 'eval'" in message and not (place / "out").exists()


# ---- mutations ----------------------------------------------------------------------------------------------------

_WORDS = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)


@st.composite
def mutations(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """(a recipe with one thing wrong, a word its error must hold)."""
    recipe = copy.deepcopy(GOOD)
    index, verb, key = draw(st.sampled_from(PLACES))
    step, known = recipe["steps"][index], verbs()[verb]
    kind = draw(
        st.sampled_from(["key", "verb", "managed", "nested", "missing", "twice", "reference", "number", "empty"])
    )
    body = step[verb]
    if kind == "key":
        word = draw(_WORDS.filter(lambda w: w not in known.options and w != "name"))
        body[word] = body.pop(key)
        return recipe, verb
    if kind == "verb":
        word = draw(_WORDS.filter(lambda w: w not in verbs()))
        recipe["steps"][index] = {word: body}
        return recipe, word
    if kind == "managed":
        word = draw(st.sampled_from([m for m in MANAGED if m in known.options]))
        body[word] = draw(st.sampled_from(["x", True, 1]))
        return recipe, word
    if kind == "missing":
        word = draw(st.sampled_from([k for k in known.keys if known.options[k].required]))
        del body[word]
        return recipe, word
    if kind == "twice":
        recipe["steps"].insert(draw(st.integers(0, len(recipe["steps"]))), copy.deepcopy(step))
        return recipe, verb
    if kind == "nested":
        body[key] = draw(st.sampled_from([{"a": 1}, [["a"]], [{"a": 1}]]))
        return recipe, key
    if kind == "empty":
        body[key] = draw(st.sampled_from([None, "", "   ", []]))
        return recipe, key
    wanted = "reference" if kind == "reference" else "number"
    fits = [k for k in known.keys if (known.options[k].takes is not None) == (wanted == "reference")]
    numbers = [k for k in fits if known.options[k].kind in (int, float)]
    if wanted == "number" and numbers:
        word = draw(st.sampled_from(numbers))
        body[word] = draw(st.sampled_from(["x", "1e", "--1", "1 2", "0x10", [1], "inf", "²"]))
        return recipe, word
    # folders that a step makes may have any name
    word = draw(st.sampled_from([k for k in known.keys if known.options[k].takes is not None and k not in MADE]))
    body[word] = draw(_WORDS.map(lambda w: "no-" + w))
    return recipe, word


@SLOW
@given(mutations())
def test_mutated_recipes(place: Path, mutation: tuple[dict[str, Any], str]) -> None:
    recipe, word = mutation
    found = error(place, json.dumps(recipe, indent=1) if len(word) % 2 else yaml.safe_dump(recipe))
    assert word in found.message and "line " in found.message


@SLOW
@given(st.integers(0, len(RECIPE) - 1), st.integers(0, 12), st.text(max_size=6))
@example(0, 12, "\0")
def test_damaged_text(place: Path, at: int, length: int, put: str) -> None:
    """Any bytes: a recipe that is understood, or a UsageError."""
    file = place / "bad.yaml"
    file.write_bytes((RECIPE[:at] + put + RECIPE[at + length :]).encode("utf-8", "surrogatepass"))
    try:
        load_recipe(file)
    except UsageError as e:
        assert "bad.yaml" in e.message
