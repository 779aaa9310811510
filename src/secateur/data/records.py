"""Records (field -> value) with the place each came from, one source of them a function."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from secateur.errors import UsageError

Records = Iterator[tuple[str, dict[str, Any]]]


def jsonl(path: Path) -> Records:
    """One JSON object a line; blank lines are passed over."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{path}:{number}", _object(f"{path}:{number}", line)
    except OSError as cause:
        raise UsageError(f"{path}: cannot be read: {cause.strerror}") from cause


def _object(where: str, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as cause:
        raise UsageError(f"{where}: not a line of JSON: {cause}") from cause
    if not isinstance(record, dict):
        raise UsageError(f"{where}: {type(record).__name__}, expected a JSON object")
    return record


def parquet(path: Path) -> Records:
    """Rows of a parquet file, a batch in memory at a time."""
    arrow, module = _extra("pyarrow"), _extra("pyarrow.parquet")
    try:
        row = 0
        for batch in module.ParquetFile(path).iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                row += 1
                yield f"{path}, row {row}", record
    except (OSError, arrow.ArrowException) as cause:
        raise UsageError(f"{path}: not a parquet file that can be read: {cause}") from cause


def hub(name: str, split: str) -> Records:
    """Records of a hub data set ``owner/name[:config]``, streamed."""
    repository, _, config = name.partition(":")
    datasets = _extra("datasets")
    try:
        found = datasets.load_dataset(repository, config or None, split=split, streaming=True)
        for number, record in enumerate(found, 1):
            yield f"hf://{name}, {split} record {number}", record
    except UsageError:
        raise
    except Exception as cause:  # network, missing repository, unknown config or split: all come as their own types
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise UsageError(
            f"hf://{name}, split {split!r}: {reason}", hint="check owner/name, :config and the split, and the network"
        ) from cause


def _extra(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as cause:
        raise UsageError(
            f"reading this source needs the package {module.partition('.')[0]!r}, which is not installed",
            hint="pip install 'secateur[data]', or convert the text to .txt or .jsonl",
        ) from cause
