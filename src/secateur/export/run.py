"""export: which writer a form has, and what it says of its result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from secateur.errors import UsageError
from secateur.model import Model

Progress = Callable[[int, int], None]


def export(
    model: Model,
    out: Path,
    to: str,
    *,
    type: str | None = None,
    pre: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write ``model`` to ``out`` in the form ``to``; returns ``bytes`` and ``notes``. Raises UsageError for options
    that the form does not have."""
    if to not in FORMS:
        raise UsageError(f"--to {to!r}: expected one of {', '.join(FORMS)}")
    return FORMS[to](model, out, type, pre, overwrite, progress)


def _gguf(
    model: Model, out: Path, type: str | None, pre: str | None, overwrite: bool, progress: Progress | None
) -> dict[str, Any]:
    from secateur.export.gguf import write_gguf

    done = write_gguf(model, out, type=type or "f16", pre=pre, overwrite=overwrite, progress=progress)
    types = ", ".join(f"{n} {kind}" for kind, n in sorted(done.types.items()))
    notes = [f"architecture {done.architecture}; tensors: {types}", f"tokenizer: {done.tokenizer}"]
    notes += [f"not computed alike: {why}" for why in done.differences]
    if done.kept:
        notes.append(f"{done.kept} linears keep their packed codes")
    return {"bytes": done.nbytes, "notes": notes}


def _sparse(
    model: Model, out: Path, type: str | None, pre: str | None, overwrite: bool, progress: Progress | None
) -> dict[str, Any]:
    from secateur.export.packed import FOLDER
    from secateur.export.sparse import write_sparse

    if type is not None or pre is not None:
        raise UsageError("--type and --pre belong to --to gguf")
    done = write_sparse(model, out, overwrite=overwrite, progress=progress)
    nbytes = sum(p.stat().st_size for p in (out / FOLDER).glob("*.safetensors"))
    return {"bytes": nbytes, "notes": [f"{done.packed} tensors as bitmaps; {done.before:,} bytes before"]}


FORMS: dict[str, Callable[..., dict[str, Any]]] = {"gguf": _gguf, "sparse": _sparse}
