"""Before long work begins: may its result be written, and is this the run that was begun in this folder?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateur.checkpoint.config import write_json
from secateur.checkpoint.files import disk_error
from secateur.errors import CheckpointError, UsageError

RUN = "run.json"


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse before hours of work what publishing would refuse after them."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if not overwrite:
            raise UsageError(f"{out}: exists and is not empty", hint="choose another folder with --out, or --overwrite")
        if not (out / "config.json").is_file():
            raise UsageError(f"{out}: holds no config.json, so it is not a checkpoint to overwrite")


def begin(work: Path, identity: Mapping[str, Any], *, restart: bool) -> None:
    """Make the work folder, or find it begun by the same run. UsageError when another run left it."""
    path = work / RUN
    try:
        if restart and path.exists():
            shutil.rmtree(work)
        if work.exists() and not path.exists() and any(work.iterdir()):
            raise UsageError(f"{work}: exists and was not written by this command", hint="choose another --work folder")
        work.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_json(path.with_suffix(".part"), dict(identity))
            path.with_suffix(".part").replace(path)
        found = json.loads(path.read_text())
    except OSError as cause:
        raise disk_error(cause, work) from cause
    except ValueError as cause:
        raise CheckpointError(f"{path}: cannot be read: {cause}", hint="start over with --restart") from cause
    if found != identity:
        raise UsageError(
            f"{work} holds an unfinished run that is not this one: {'; '.join(differences(found, identity))}",
            hint="give the same options to resume it, or --restart to begin anew",
        )


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], place: str = "") -> list[str]:
    """Where two nested tables differ, as lines for a message."""
    lines = []
    for key in sorted({*found, *wanted}):
        a, b = found.get(key), wanted.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{place}{key}.")
        elif a != b:
            lines.append(f"{place}{key} was {a}, now {b}")
    return lines
