"""Models ready to run: plain transformers, loaded strictly, on one device in one dtype."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from secateur.errors import UsageError
from secateur.evaluation.equality import load_strict

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Place:
    """Where and in what precision models run. auto: the first GPU if there is one; float32 on a CPU, else bfloat16."""

    device: str = "auto"
    dtype: Dtype = "auto"
    fast: bool = False

    def resolved(self) -> Place:
        """The same with every auto replaced. Raises UsageError for a device or dtype that torch does not know."""
        device = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as cause:  # torch raises either, by the reason
            raise UsageError(f"device {device!r} cannot be used: {str(cause).splitlines()[0]}") from cause
        dtype = self.dtype if self.dtype != "auto" else "float32" if device == "cpu" else "bfloat16"
        if dtype not in DTYPES:
            raise UsageError(f"dtype {dtype!r}: expected auto, {', '.join(DTYPES)}")
        return Place(device, dtype, self.fast)

    def to_json(self) -> dict[str, Any]:
        return {"device": self.device, "dtype": self.dtype, "fast_kernels": self.fast}


@contextlib.contextmanager
def loaded(folder: Path, place: Place) -> Iterator[Any]:
    """The model of a checkpoint folder, inside the block. Raises CheckpointError if it does not load strictly."""
    from transformers.utils import logging

    from secateur.kernels import fast

    place = place.resolved()
    model = load_strict(folder).to(device=place.device, dtype=DTYPES[place.dtype])
    model.requires_grad_(False)
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it advises packages we measure without
    try:
        with fast(model) if place.fast else contextlib.nullcontext():
            yield model
    finally:
        logging.set_verbosity(level)


def positions(model_config: Any) -> int | None:
    """Tokens the config promises to handle; None where there is no bound (recurrent models)."""
    found = model_config.get("max_position_embeddings", model_config.get("n_positions"))
    return found if isinstance(found, int) and found > 0 else None


__all__ = ["Dtype", "Place", "loaded", "positions"]
