"""config.json as it lies on disk: read raw, written back with its own keys in their own order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from secateur.checkpoint.files import disk_error, read_small, short
from secateur.checkpoint.strict_json import parse_json, printable
from secateur.errors import ConfigError

MAX_CONFIG = 16 << 20
"""Bytes. Published configs stay below 100 kB; label tables and quantization tables are the large ones."""
MAX_DEPTH = 64


def read_config(path: Path) -> dict[str, Any]:
    """The raw config.json of a checkpoint folder (or the config file itself).

    Parsed as transformers parses it: NaN and Infinity are numbers (``time_step_limit`` of Mamba-2 is often
    ``[0.0, Infinity]``), and of a repeated key the last value counts. ConfigError if it is not an object with a
    ``model_type``.
    """
    file = path / "config.json" if path.is_dir() else path
    config = parse_json(read_small(file, MAX_CONFIG, ConfigError), path=file, error=ConfigError, specials=True)
    if not isinstance(config, dict):
        raise ConfigError(f"{file}: {short(config)}, expected a JSON object")
    _check_tree(config, file)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise ConfigError(
            f"{file}: model_type is {short(model_type)}, expected a non-empty string",
            hint="Only Hugging Face checkpoints are read; convert the original weights with transformers first.",
        )
    return config


def write_json(path: Path, obj: object) -> None:
    """Write ``obj`` as UTF-8 JSON with keys in their order, two spaces of indent, and a final newline."""
    text = json.dumps(obj, indent=2, ensure_ascii=False) + "\n"
    try:
        path.write_bytes(text.encode("utf-8"))
    except OSError as cause:
        raise disk_error(cause, path, needed=len(text)) from cause


def _check_tree(config: dict[str, Any], file: Path) -> None:
    """What parses can still fail later: nesting beyond the encoder's recursion, strings UTF-8 cannot spell."""
    todo: list[tuple[Any, int]] = [(config, 1)]
    while todo:
        value, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise ConfigError(f"{file}: nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, str) and not printable(value):
            raise ConfigError(f"{file}: {short(value)} holds half a surrogate pair, which UTF-8 cannot spell")
        if isinstance(value, dict):
            todo.extend((item, depth + 1) for item in value)
            todo.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, list):
            todo.extend((item, depth + 1) for item in value)
