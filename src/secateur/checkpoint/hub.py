"""From what a user types - a folder, a config file, a hub id - to a path on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors as hub_errors

from secateur.checkpoint.files import short
from secateur.errors import CheckpointError

_EXAMPLES = "Give a checkpoint folder, a config.json, or a hub id such as nvidia/Nemotron-H-8B-Base-8K."
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_SMALL = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.md", "LICENSE*", "LICENCE*", "NOTICE*")
_WEIGHTS = ("*.safetensors",)
# Beside the standard weights: weights in subfolders (original/, onnx/) and Mistral's second copy in its own format.
_NEVER = ("*.bin", "*.py", "*.bin.index.json", "*/*.safetensors", "consolidated*.safetensors")


def resolve(path_or_hub_id: str | Path, revision: str | None = None, *, weights: bool = True) -> Path:
    """The folder of a checkpoint, or the lone config file, that ``path_or_hub_id`` means.

    What exists here, is a Path, or starts with ``.``, ``/`` or ``~`` is local and never sent to the hub. A hub id is
    downloaded into the Hugging Face cache: safetensors (unless ``weights`` is False), JSON, tokenizer and text files,
    never pickles or code. CheckpointError with the next step if it cannot be had.
    """
    text = os.fspath(path_or_hub_id)
    if not text:
        raise CheckpointError("the model's name is empty", hint=_EXAMPLES)
    local = Path(text).expanduser() if text.startswith("~") else Path(text)
    try:
        exists = local.exists()
    except (OSError, ValueError) as cause:
        raise CheckpointError(f"{short(text)}: not a usable path: {cause}") from cause
    if exists:
        return _checked(local)
    if isinstance(path_or_hub_id, Path) or text.startswith((".", "/", "~")):
        raise CheckpointError(f"{short(text)}: no such file or folder", hint="Check the path.")
    if not _HUB_ID.fullmatch(text):
        raise CheckpointError(
            f"{short(text)}: no such folder, and not a hub id",
            hint=_EXAMPLES,
        )
    return _download(text, revision, weights)


def _checked(path: Path) -> Path:
    if path.is_file() and path.suffix != ".json":
        raise CheckpointError(
            f"{path}: a file, expected a checkpoint folder or a config.json",
            hint="Name the folder that holds the file.",
        )
    if not path.is_file() and not path.is_dir():
        raise CheckpointError(f"{path}: neither a file nor a folder")
    return path


def _download(hub_id: str, revision: str | None, weights: bool) -> Path:
    patterns = list(_SMALL + _WEIGHTS if weights else _SMALL)
    try:
        return Path(
            huggingface_hub.snapshot_download(
                hub_id, revision=revision, allow_patterns=patterns, ignore_patterns=list(_NEVER)
            )
        )
    except Exception as cause:
        # The hub client, its transport and its Xet backend raise classes without a common root; whatever it is, the
        # user asked for a model that cannot be had.
        raise CheckpointError(
            f"{hub_id}: cannot be had from the hub: {_first_line(cause)}", hint=_way_out(cause)
        ) from (cause)


def _way_out(cause: Exception) -> str:
    for kinds, hint in _WAYS_OUT:
        if isinstance(cause, kinds):
            return hint
    return "Check the connection and try again, or name a local folder."


# Order matters: gated is a kind of not-found, and an incomplete snapshot a kind of file-not-found.
_WAYS_OUT: tuple[tuple[type[BaseException], str], ...] = (
    (hub_errors.GatedRepoError, "Accept the model's terms on its hub page, then log in: hf auth login."),
    (
        hub_errors.RepositoryNotFoundError,
        "Check the spelling (organisation/name); for a private model log in: hf auth login. "
        "A local folder can be given as ./name.",
    ),
    (hub_errors.RevisionNotFoundError, "Check the revision: a branch, a tag or a commit of that model."),
    (hub_errors.HFValidationError, "A hub id looks like organisation/name. A local folder can be given as ./name."),
    (
        hub_errors.LocalEntryNotFoundError,
        "The hub cannot be reached and the cache does not hold the whole model: connect (unset HF_HUB_OFFLINE), or "
        "name a local folder.",
    ),
    (hub_errors.OfflineModeIsEnabled, "Unset HF_HUB_OFFLINE, or name a local folder."),
    (OSError, "Check the connection, the free space and the rights of the cache folder (HF_HOME), then try again."),
)


def _first_line(cause: Exception) -> str:
    return next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
