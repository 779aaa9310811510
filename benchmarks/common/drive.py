"""The driver of all experiments, and how a parent's weights are named in their results."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import torch
import transformers
from benchmarks.common.units import Unit, run_all

from secateur.errors import SecateurError


def drive(experiments: Iterable[tuple[str, Iterable[Unit], Path]], locks: Path) -> None:
    """Run the units of (name, units, results file) that have no result yet, on one thread: several processes of one
    thread beat one of several."""
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    try:
        for name, units, path in experiments:
            say(f"{name}: {run_all(units, path, locks, say)} units run, results in {path}")
    except SecateurError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def say(text: str) -> None:
    """A line with the time of day."""
    print(f"{datetime.now():%H:%M:%S}  {text}", flush=True)


def digest(folder: Path) -> str:
    """Twelve digits that name a checkpoint's weights."""
    files = sorted(folder.glob("*.safetensors"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]
