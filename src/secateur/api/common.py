"""What the functions of this package share: models, texts and statistics as they are given."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from secateur.errors import UsageError

if TYPE_CHECKING:
    from secateur.calibration.stats import Stats
    from secateur.model import Model

Source: TypeAlias = Union[str, Path, "Model"]
Text: TypeAlias = str | Path | Sequence[str | Path]
Progress: TypeAlias = Callable[[str, int, int], None]


def open(source: str | Path, *, revision: str | None = None) -> Model:
    """Open a checkpoint folder, a config.json or a hub id: config and tensor index only, no weights.

    Raises SecateurError when the files are not a checkpoint this library can read.
    """
    from secateur.model import open_model

    return open_model(source, revision=revision)


@contextlib.contextmanager
def opening(source: Source) -> Iterator[Model]:
    """The model; closed at the end when it was opened here."""
    if not isinstance(source, str | Path):
        yield source
        return
    with open(source) as model:
        yield model


def several(sources: Source | Sequence[Source]) -> list[Source]:
    return list(sources) if isinstance(sources, Sequence) and not isinstance(sources, str) else [sources]


def texts_of(text: Text) -> list[str | Path]:
    return [text] if isinstance(text, str | Path) else list(text)


def stats_of(stats: Stats | str | Path | None, model: Model) -> Stats | None:
    """The statistics, read from their file where one is given. UsageError when they are another model's."""
    from secateur.calibration.stats import load_stats

    return load_stats(Path(stats), model) if isinstance(stats, str | Path) else stats


def file_to_write(out: str | Path) -> Path:
    """A file to write; refused before anything is measured when it cannot be."""
    path = Path(out)
    if path.is_dir() or not path.absolute().parent.is_dir():
        why = "is a folder" if path.is_dir() else "its folder does not exist"
        raise UsageError(f"--out {path}: {why}", hint="name a file in a folder that exists")
    return path
