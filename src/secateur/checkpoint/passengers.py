"""The files beside config and weights: which of them travel to the child unchanged, which stay, and why."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from secateur.checkpoint.files import disk_error, open_regular
from secateur.checkpoint.hf_cache import contained
from secateur.errors import CheckpointError

Action = Literal["carried", "left"]

_RULES: tuple[tuple[Action, str, tuple[str, ...]], ...] = (
    ("left", "written anew for the child", ("config.json", "model*.safetensors", "model.safetensors.index.json")),
    ("left", "secateur's record of how the parent itself was made", ("secateur.json",)),
    ("carried", "generation defaults", ("generation_config.json",)),
    (
        "carried",
        "tokenizer",
        (
            "tokenizer.json",
            "tokenizer_config.json",
            "tokenizer.model*",
            "special_tokens_map.json",
            "added_tokens.json",
            "vocab.json",
            "vocab.txt",
            "merges.txt",
            "spiece.model",
            "sentencepiece*.model",
            "tekken.json",
            "*.tiktoken",
        ),
    ),
    ("carried", "chat template", ("chat_template*.jinja", "chat_template.json", "additional_chat_templates/*.jinja")),
    (
        "carried",
        "input processor",
        ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
    ),
    ("carried", "licence", ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "COPYING*", "license*", "notice*")),
    ("left", "describes the parent, not the child", ("README*", "*.md")),
    ("left", "code; nothing of a checkpoint is ever run", ("*.py", "*.pyc", "*.sh", "*.so", "*.ipynb")),
    (
        "left",
        "pickle; can run code when loaded",
        ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib", "*.npy", "*.npz"),
    ),
    ("left", "weights of the parent in another file or format", ("*.safetensors", "*.gguf", "*.onnx*", "*.h5")),
    ("left", "weights of the parent in another file or format", ("*.msgpack", "*.nemo", "*.tflite", "*.mlmodel")),
    ("left", "index of files that are left", ("*.index.json",)),
    ("left", "state of the parent's training", ("trainer_state.json", "optimizer*", "scheduler*", "rng_state*")),
    ("left", "hidden file", (".*",)),
)
_FOLDERS = ("additional_chat_templates",)


@dataclass(frozen=True, slots=True)
class Passenger:
    """One file of the parent's folder (``name`` relative to it) and what becomes of it."""

    name: str
    action: Action
    reason: str


def list_passengers(folder: Path) -> list[Passenger]:
    """What becomes of every file in ``folder``, sorted by name. Subfolders stay, except those of chat templates.

    CheckpointError if the folder cannot be listed.
    """
    found: list[Passenger] = []
    try:
        for path in sorted(folder.iterdir()):
            if path.name in _FOLDERS and path.is_dir() and not path.is_symlink():
                found.extend(_judge(child, f"{path.name}/{child.name}") for child in sorted(path.iterdir()))
            else:
                found.append(_judge(path, path.name))
    except OSError as cause:
        raise CheckpointError(f"{folder}: cannot be listed: {cause.strerror}") from cause
    return found


def copy_passengers(folder: Path, destination: Path, passengers: Iterable[Passenger] | None = None) -> list[Passenger]:
    """Copy the carried files of ``folder`` into the existing folder ``destination``; returns the whole list.

    ``passengers`` defaults to ``list_passengers(folder)``. Links are followed: the copy is a file. CheckpointError if
    a file cannot be read or written.
    """
    listed = list_passengers(folder) if passengers is None else list(passengers)
    for passenger in listed:
        if passenger.action == "carried":
            _copy(folder / passenger.name, destination / passenger.name)
    return listed


def _judge(path: Path, name: str) -> Passenger:
    if path.is_dir():
        return Passenger(name, "left", "subfolder")
    for action, reason, patterns in _RULES:
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            if action == "carried":
                try:
                    contained(path.parent, path.name)
                except CheckpointError:
                    return Passenger(name, "left", "a link that leads out of the folder, or nowhere")
                if not path.is_file():
                    return Passenger(name, "left", "not a regular file")
            return Passenger(name, action, reason)
    return Passenger(name, "left", "not a file this library knows")


def _copy(source: Path, target: Path) -> None:
    with os.fdopen(open_regular(source), "rb") as reader:
        try:
            target.parent.mkdir(exist_ok=True)
            with target.open("xb") as writer:
                shutil.copyfileobj(reader, writer)
        except OSError as cause:
            raise disk_error(cause, target, needed=os.fstat(reader.fileno()).st_size) from cause
