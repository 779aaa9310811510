"""A recipe bound to its verbs: every key, value and reference checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.recipe.document import Document, Entry, Scalar, Value, nearest, read_document
from secateur.recipe.options import MADE, MANAGED, RESULTS, Option, Verb, verbs

_HUB_ID = re.compile(r"([a-z0-9][\w.-]*)/[\w.-]+", re.ASCII | re.IGNORECASE)
NOTES = ".recipe"
"""Folder below ``work`` with what is known of each step."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step, ready to run. ``settings``: key -> value, defaults included, of options that are no paths.

    ``paths``: key -> what its values mean: names of earlier steps, or files, folders and hub ids outside the recipe.
    """

    name: str
    verb: Verb
    line: int
    result: Path
    settings: Mapping[str, Any]
    paths: Mapping[str, tuple[Step | str, ...]]

    @property
    def inputs(self) -> tuple[Step, ...]:
        """The steps whose results this one reads."""
        return tuple(s for values in self.paths.values() for s in values if isinstance(s, Step))

    def arguments(self, journal: Path) -> dict[str, Any]:
        """Keyword arguments of the verb's function."""
        given: dict[str, Any] = {"out": self.result, "journal": journal}
        for key, values in self.paths.items():
            option = self.verb.options[key]
            kind = Path if option.kind is Path else str
            found = [kind(v.result if isinstance(v, Step) else v) for v in values]
            given[key] = found if option.many else found[0]
        given |= self.settings
        return {o.parameter: given.get(key, o.default) for key, o in self.verb.options.items()}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps in order. ``work``: where results and notes lie."""

    path: Path
    work: Path
    steps: tuple[Step, ...]

    @property
    def notes(self) -> Path:
        return self.work / NOTES


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe; relative paths in it are relative to the recipe's folder.

    Raises UsageError with file, line, step and key, what was expected, and the nearest spelling.
    """
    document = read_document(path)
    base = path.absolute().parent
    work = base / (path.stem if document.work is None else Path(document.work.text).expanduser())
    try:
        usable = work.is_dir() or not work.exists()
    except (OSError, ValueError):
        usable = False
    if not usable:
        line = 1 if document.work is None else document.work.line
        raise document.error(line, f"work: {work} cannot be a folder", "name another one with work:")
    binder = _Binder(document, base, work)
    return Recipe(path, work, tuple(binder.step(entry) for entry in document.steps))


class _Binder:
    """Entries -> steps, one after another; a step sees those before it."""

    def __init__(self, document: Document, base: Path, work: Path) -> None:
        self.document, self.base, self.work = document, base, work
        self.done: dict[str, Step] = {}
        self.later = {e.name: e.line for e in document.steps}

    def step(self, entry: Entry) -> Step:
        known = verbs()
        if entry.verb not in known:
            expected = f"unknown verb {entry.verb!r}, expected one of {', '.join(known)}"
            raise self.document.error(entry.line, expected, nearest(entry.verb, known))
        verb = known[entry.verb]
        self.later.pop(entry.name)
        self._known_keys(entry, verb)
        settings: dict[str, Any] = {}
        paths: dict[str, tuple[Step | str, ...]] = {}
        for key in verb.keys:
            option, value = verb.options[key], entry.settings.get(key)
            if value is None:
                if option.takes is None:
                    settings[key] = option.default
            elif option.takes is None:
                settings[key] = self._setting(entry, option, value)
            else:
                paths[key] = self._paths(entry, option, value)
        result = self.work / (entry.name + RESULTS[entry.verb])
        made = Step(entry.name, verb, entry.line, result, settings, paths)
        self.done[entry.name] = made
        return made

    def _known_keys(self, entry: Entry, verb: Verb) -> None:
        for key, value in entry.settings.items():
            if key in MANAGED and key in verb.options:
                raise self._error(entry, key, value.line, "is decided by the recipe; results lie in its work folder")
            if key not in verb.keys:
                hint = nearest(key, verb.keys) or f"expected one of {', '.join(verb.keys)}"
                raise self._error(entry, key, value.line, "unknown key", hint)
        for key in verb.keys:
            if verb.options[key].required and key not in entry.settings:
                raise self._error(
                    entry, key, entry.line, "is missing", f"`secateur {verb.name} --help` says what it is"
                )

    def _setting(self, entry: Entry, option: Option, value: Value) -> Any:
        if value.is_list and not option.many:
            raise self._error(entry, option.key, value.line, "a list, expected one value")
        found = []
        for item in value.items:
            try:
                found.append(option.convert(item.text))
            except ValueError as e:
                words = option.kind if isinstance(option.kind, tuple) else ()
                message = f"{item.text!r}, expected {e}"
                raise self._error(entry, option.key, item.line, message, nearest(item.text, words)) from e
        return found if option.many else found[0]

    def _paths(self, entry: Entry, option: Option, value: Value) -> tuple[Step | str, ...]:
        inputs, items = self.document.inputs, list[Scalar]()
        for item in value.items:
            items += inputs[item.text].items if item.text in inputs else (item,)
        if len(items) != 1 and not option.many:
            raise self._error(entry, option.key, value.line, f"{len(items)} values, expected one")
        return tuple(self._path(entry, option, item) for item in items)

    def _path(self, entry: Entry, option: Option, item: Scalar) -> Step | str:
        """A step of a verb that fits, or a place outside the recipe that is there."""
        takes = option.takes or ()
        step = self.done.get(item.text)
        if step is not None:
            if step.verb.name not in takes:
                expected = f"the result of {' or '.join(takes)}" if takes else "a file or an input, no step"
                message = f"{item.text!r} is the result of {step.verb.name}, expected {expected}"
                raise self._error(entry, option.key, item.line, message)
            return step
        if item.text == entry.name or item.text in self.later:
            raise self._error(entry, option.key, item.line, f"{item.text!r} is no earlier step", "steps run in order")
        if item.text.startswith("hf://"):
            return item.text
        place = self.base / Path(item.text).expanduser()
        try:
            exists = place.exists()
        except (OSError, ValueError):
            exists = False
        if exists:
            return str(place)
        hub = _HUB_ID.fullmatch(item.text) if option.model else None
        if hub and not (self.base / hub[1]).exists():  # what lies below a folder that is here was meant to be here
            return item.text
        if option.key in MADE:
            return str(place)
        names = [*self.document.inputs, *(n for n, s in self.done.items() if s.verb.name in takes)]
        message = f"{item.text!r} is neither an input, nor an earlier step, nor a file or folder in {self.base}"
        raise self._error(entry, option.key, item.line, message, nearest(item.text, names))

    def _error(self, entry: Entry, key: str, line: int, message: str, hint: str | None = None) -> Exception:
        return self.document.error(line, f"step {entry.name!r}, {key}: {message}", hint)
