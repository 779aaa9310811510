"""A checkpoint's tokenizer, and whether a model can read what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateur.errors import UsageError


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer saved in a checkpoint folder; no code of the folder is run.

    UsageError if there is none, or transformers cannot read it.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as cause:  # a damaged tokenizer raises whatever its parser raises
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise UsageError(
            f"{folder}: no tokenizer could be loaded: {reason}",
            hint="text needs the model's own tokenizer: copy tokenizer.json and tokenizer_config.json into the folder",
        ) from cause


def check_vocabulary(tokenizer: Any, vocab_size: int, *, model: str = "the model") -> None:
    """UsageError when the tokenizer can write ids beyond the ``vocab_size`` rows of the model's embedding."""
    if len(tokenizer) > vocab_size:
        raise UsageError(
            f"the tokenizer knows {len(tokenizer)} tokens, but the embedding of {model} has {vocab_size} rows",
            hint="use the tokenizer that belongs to this checkpoint",
        )
