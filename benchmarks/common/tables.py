"""Tables from results: cells, Markdown, and their place between two marks of a README."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1]
RESULTS = FOLDER / "results"
README = FOLDER / "README.md"
Line = dict[str, Any]


def spread(values: Iterable[float], digits: int = 3) -> str:
    """Mean, half the range from the lowest to the highest, and how many where they are not three."""
    found = list(values)
    if not found:
        return "-"
    text = f"{statistics.mean(found):.{digits}f}"
    if len(found) > 1:
        text += f" ± {(max(found) - min(found)) / 2:.{digits}f}"
    return text if len(found) == 3 else f"{text} (n={len(found)})"


def pick(lines: Iterable[Line], **wanted: Any) -> list[Line]:
    """Lines whose settings are these."""
    return [line for line in lines if all(line["settings"].get(k) == v for k, v in wanted.items())]


def values(lines: Iterable[Line], key: str) -> list[float]:
    """One number of every line's result."""
    return [line["result"][key] for line in lines]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; the first column is text, the others numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_between(page: Path, name: str, text: str) -> None:
    """Put ``text`` between the marks ``<!-- name: begin -->`` and ``<!-- name: end -->`` of ``page``."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"error: {page} has no marks {begin} and {end}: put them where the table belongs")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def show(program: str, about: str, tables: Mapping[str, Callable[[Path], str]], page: Path = README) -> None:
    """The command line of a table: print what is made of the results, write it between the marks if asked to."""
    p = argparse.ArgumentParser(
        prog=f"python -m {program}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--results", type=Path, default=RESULTS)
    p.add_argument("--write", action="store_true", help=f"put the tables into {page.relative_to(FOLDER.parent)}")
    settings = p.parse_args()
    for name, make in tables.items():
        text = make(settings.results)
        print(text)
        if settings.write:
            write_between(page, name, text)
