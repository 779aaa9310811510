"""The Hugging Face cache's layout, as far as links and hashes need it.

    <cache>/models--org--name/snapshots/<revision>/model.safetensors -> ../../blobs/<etag>
    <cache>/models--org--name/blobs/<etag>                           a file, or -> ../../blobs/<xx>/<xet hash>
    <cache>/blobs/<xx>/<xet hash>                                    the store repositories share

The etag of a large file is its sha256. The xet hash is 64 hex digits too, but of another function: only the link in
the repository's own ``blobs`` may be read as a sha256.
"""

from __future__ import annotations

import re
from pathlib import Path

from secateur.checkpoint.files import short
from secateur.errors import CheckpointError

_SHA256 = re.compile(r"[0-9a-f]{64}")


def contained(folder: Path, name: str) -> Path:
    """The path of the file ``name`` in ``folder``; CheckpointError if a name or a link leads out of the folder.

    The links of a Hugging Face cache snapshot lead to the blobs beside it and are allowed.
    """
    if not name or name in {".", ".."} or "/" in name or "\\" in name or "\0" in name:
        raise CheckpointError(f"{folder}: file name {short(name)}, expected a plain name inside the folder")
    path = folder / name
    try:
        root, real = folder.resolve(strict=True), path.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{folder}: {short(name)} is missing", hint="Download or copy the missing file into the folder."
        ) from None
    except (OSError, RuntimeError, ValueError) as cause:
        raise CheckpointError(f"{folder}: {short(name)} cannot be reached: {cause}") from cause
    if not any(real.is_relative_to(place) for place in (root, *_blob_stores(root))):
        raise CheckpointError(
            f"{path}: a link that leads out of the folder, to {real}",
            hint="Replace the link with the file, or name the folder that holds the file.",
        )
    return path


def known_sha256(path: Path) -> str | None:
    """The sha256 the hub gave for a file in a cache snapshot, without reading it; None where it is not known."""
    stores = _blob_stores(path.parent.resolve())
    if not stores or not path.is_symlink():
        return None
    blob = path.parent / path.readlink()
    if blob.parent.resolve() != stores[0] or not _SHA256.fullmatch(blob.name):
        return None
    return blob.name


def _blob_stores(folder: Path) -> tuple[Path, ...]:
    """The repository's own and the shared blob folder if ``folder`` lies in a cache snapshot, else nothing."""
    for place in (folder, *folder.parents):
        if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
            repository = place.parent.parent
            return repository / "blobs", repository.parent / "blobs"
    return ()
