"""A recipe's YAML, read into scalars that know their line. Nothing is interpreted: ``3:5`` stays ``3:5``.

work: halved              # folder for the results; beside the recipe, under its name, when left out
inputs:                   # names for what is there already
  parent: ./checkpoint
  books: [books/, more.txt]
steps:                    # verbs with their options; a step's name is its verb unless it says otherwise
  - calibrate: {model: parent, text: books}
  - prune: {name: half, model: parent, stats: calibrate, params: 50%}
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from secateur.errors import UsageError

MAX_BYTES = 1 << 20
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_KEYS = ("work", "inputs", "steps")


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as written."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Value:
    """What stands behind a key: one scalar, or a list of them."""

    items: tuple[Scalar, ...]
    is_list: bool
    line: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One step as written."""

    name: str
    verb: str
    line: int
    settings: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Document:
    """A recipe as written. ``path``: the file, to which relative paths refer."""

    path: Path
    work: Scalar | None
    inputs: dict[str, Value]
    steps: tuple[Entry, ...]

    def error(self, line: int, message: str, hint: str | None = None) -> UsageError:
        return UsageError(f"{self.path}, line {line}: {message}", hint=hint)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """A hint with the spelling that was probably meant."""
    found = difflib.get_close_matches(word, list(words), 1, 0.5)
    return f"did you mean {found[0]!r}?" if found else None


def read_document(path: Path) -> Document:
    """Parse a recipe. Raises UsageError with the line of whatever is not of the form above."""
    reader = _Reader(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path}: more than {MAX_BYTES} bytes, expected a recipe")
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"cannot read the recipe {path}: {e}") from e
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise UsageError(f"{path}{where}: no YAML: {getattr(e, 'problem', None) or e}") from e
    except (RecursionError, ValueError) as e:
        raise UsageError(f"{path}: nested too deeply, or holds characters that YAML does not allow") from e
    return reader.document(root)


class _Reader:
    """Nodes of one file -> :class:`Document`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def error(self, node: yaml.Node | None, message: str, hint: str | None = None) -> UsageError:
        line = 1 if node is None else node.start_mark.line + 1
        return UsageError(f"{self.path}, line {line}: {message}", hint=hint)

    def document(self, root: yaml.Node | None) -> Document:
        top = self.mapping(root, "the recipe", "work, inputs and steps")
        for key, (node, _) in top.items():
            if key not in _KEYS:
                raise self.error(node, f"unknown key {key!r}, expected one of {', '.join(_KEYS)}", nearest(key, _KEYS))
        if "steps" not in top:
            raise self.error(root, "the recipe has no steps", "write steps: and a list of verbs below it")
        inputs = self.inputs(top["inputs"][1]) if "inputs" in top else {}
        work = self.scalar(top["work"][1], "work") if "work" in top else None
        return Document(self.path, work, inputs, tuple(self.steps(top["steps"][1], inputs)))

    def inputs(self, node: yaml.Node) -> dict[str, Value]:
        found = {}
        for name, (key, value) in self.mapping(node, "inputs", "names and paths").items():
            self.check_name(key, name)
            found[name] = self.value(value, f"input {name!r}")
        return found

    def steps(self, node: yaml.Node, taken: Iterable[str]) -> Iterator[Entry]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise self.error(node, "steps is no list of verbs", "write each as  - verb: {option: value}")
        lines = dict.fromkeys(taken, "an input")
        for item in node.value:
            entry = self.step(item)
            if entry.name in lines:
                raise self.error(
                    item,
                    f"the name {entry.name!r} is taken by {lines[entry.name]}",
                    "give one of them another: name: ...",
                )
            lines[entry.name] = f"the step in line {entry.line}"
            yield entry

    def step(self, node: yaml.Node) -> Entry:
        expected = "one verb with its options, as in  prune: {params: 50%}"
        found = self.mapping(node, "a step", expected)
        if len(found) != 1:
            raise self.error(node, f"a step with {len(found)} keys ({', '.join(found)}), expected {expected}")
        verb, (key, body) = next(iter(found.items()))
        settings = {k: self.value(v, f"{k!r}") for k, (_, v) in self.mapping(body, verb, "options").items()}
        name = settings.pop("name", None)
        if name is not None and name.is_list:
            raise self.error(body, f"the name of step {verb!r} is a list")
        said = verb if name is None else name.items[0].text
        self.check_name(key, said)
        return Entry(said, verb, key.start_mark.line + 1, settings)

    def check_name(self, node: yaml.Node, name: str) -> None:
        if not NAME.fullmatch(name):
            raise self.error(node, f"the name {name!r}: expected letters, digits, - and _, beginning with a letter")

    def mapping(self, node: yaml.Node | None, what: str, expected: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null") and what not in ("the recipe", "a step"):
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, f"{what}: expected {expected}")
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.error(key, f"{what}: a key that is no word")
            if key.value in found:
                raise self.error(key, f"{what}: {key.value!r} is given twice")
            found[key.value] = (key, value)
        return found

    def value(self, node: yaml.Node, what: str) -> Value:
        line = node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode):
            if not node.value:
                raise self.error(node, f"{what} is an empty list")
            return Value(tuple(self.scalar(n, what) for n in node.value), True, line)
        return Value((self.scalar(node, what),), False, line)

    def scalar(self, node: yaml.Node, what: str) -> Scalar:
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(node, f"{what} is nested, expected a value or a list of values")
        if node.tag.endswith(":null") or not node.value.strip() or "\0" in node.value:
            raise self.error(node, f"{what} is empty", "give a value, or leave the key out")
        return Scalar(node.value, node.start_mark.line + 1)
