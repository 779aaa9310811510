"""The embedded default as a folder to work in: parent, texts and a recipe, plain files to be read and edited."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterator
from pathlib import Path

from secateur.checkpoint.files import disk_error
from secateur.errors import CheckpointError, UsageError

DATA = Path(__file__).parent / "data"
RECIPE = "recipe.yaml"
#: Variant -> the embedded recipe that becomes RECIPE.
VARIANTS = {"demo": "demo.yaml", "quick": "quick.yaml"}


def unpack(folder: Path, variant: str = "demo", data: Path = DATA) -> Path:
    """Write parent, texts and recipe to ``folder`` and return the recipe's path; what is there already is left alone.

    Raises UsageError when ``folder`` holds something else, or a file of ours that was edited; CheckpointError when the
    disk refuses.
    """
    recipe = folder / RECIPE
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file", hint="name a new folder with --out")
    if not recipe.exists() and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder}: exists and is no folder of this demo", hint="name a new folder with --out")
    if recipe.exists() and not any(_same(recipe, data / name) for name in VARIANTS.values()):
        raise UsageError(
            f"{recipe}: is not the demo's own recipe (any more)",
            hint=f"run an edited recipe with `secateur run {recipe}`, or name a new folder with --out",
        )
    _place(data / VARIANTS[variant], recipe)  # first: it marks the folder as ours
    for source in _embedded(data):
        target = folder / source.relative_to(data)
        if target.exists() and not _same(source, target):
            raise UsageError(f"{target}: was changed since the demo wrote it", hint="name a new folder with --out")
        _place(source, target)
    return recipe


def _embedded(data: Path) -> Iterator[Path]:
    """Files of the default besides the recipes."""
    for path in sorted(data.rglob("*")):
        if path.is_file() and path.name not in VARIANTS.values():
            yield path


def _same(a: Path, b: Path) -> bool:
    try:
        return filecmp.cmp(a, b, shallow=False)
    except OSError as cause:
        raise CheckpointError(f"{b}: cannot be compared with {a}: {cause.strerror}") from cause


def _place(source: Path, target: Path) -> None:
    """Copy unless the same is there, whole or not at all; times of change stay, by which recipes know large files."""
    if target.exists() and _same(source, target):
        return
    partial = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, partial)
        shutil.copystat(source, partial)
        partial.chmod(0o644)  # the package may lie in a read-only place
        partial.replace(target)
    except OSError as cause:
        raise disk_error(cause, target, needed=source.stat().st_size) from cause


__all__ = ["DATA", "RECIPE", "VARIANTS", "unpack"]
