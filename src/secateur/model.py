"""An opened checkpoint: its config, the anatomy that follows from it, and its tensors on disk. No weights in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from secateur.anatomy.anatomy import Anatomy, TensorDecl
from secateur.checkpoint import DTYPES, TensorStore, read_config
from secateur.checkpoint.hub import resolve
from secateur.checkpoint.quantized import is_packed, open_quantized
from secateur.errors import CheckpointError, ConfigError

#: Weights a cut can work on; everything else is a quantised or damaged checkpoint.
FLOATS = ("F64", "F32", "F16", "BF16")
_CONFIG_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class Model:
    """A checkpoint folder (or a lone config.json) bound to its family.

    ``store`` is None when there are only a config's promises: planning and inspecting work, cutting does not.
    """

    def __init__(self, source: str, folder: Path, raw: Mapping[str, Any], store: TensorStore | None) -> None:
        self.source, self.folder, self.store = source, folder, store
        self.raw = dict(raw)
        _refuse_quantized(self.raw)
        self.raw.pop("quantization_config", None)  # what is read here is dense
        anatomy = Anatomy(self.raw)
        self.anatomy: Anatomy = anatomy if store is None else anatomy.with_root(list(store.tensors))
        self.left: dict[str, str] = {}
        if store is not None:
            self.left = self.anatomy.check_index({n: i.shape for n, i in store.tensors.items()})
            _check_dtypes(store, self.anatomy)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.store is not None:
            self.store.close()

    def __repr__(self) -> str:
        return f"<{self.anatomy.family.model_type} {self.source}: {self.anatomy.count() / 1e6:,.1f} M parameters>"

    @cached_property
    def default_dtype(self) -> str:
        """The safetensors code of the dtype the config names (BF16 when it names none)."""
        name = str(self.raw.get("dtype") or self.raw.get("torch_dtype") or "bfloat16").removeprefix("torch.")
        if name not in _CONFIG_DTYPES:
            raise ConfigError(f"config.json: dtype is {name!r}, expected one of {', '.join(_CONFIG_DTYPES)}")
        return _CONFIG_DTYPES[name]

    def dtype(self, name: str) -> str:
        """Safetensors dtype code of a declared tensor: as stored, or as the config promises."""
        return self.default_dtype if self.store is None else self.store.tensors[name].dtype

    def itemsize(self, decl: TensorDecl) -> int:
        """Bytes per entry of a declared tensor."""
        return DTYPES[self.dtype(decl.name)][1]

    def read(self, name: str) -> torch.Tensor:
        """One tensor from disk, checked to be finite. Raises CheckpointError naming the tensor."""
        return _finite(name, self.weights.read(name))

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows ``start`` to ``stop`` of one tensor, checked like :meth:`read`."""
        return _finite(name, self.weights.read_rows(name, start, stop))

    @property
    def weights(self) -> TensorStore:
        """The tensors on disk. Raises CheckpointError when only a config was opened."""
        if self.store is None:
            raise CheckpointError(
                f"{self.source}: this needs weights, but there is only a config.json",
                hint="give the folder (or hub id) of the whole checkpoint; inspect and plan work without weights",
            )
        return self.store

    @cached_property
    def config_sha256(self) -> str:
        """Fingerprint of the config a plan was made for: key order and white space do not count."""
        return hashlib.sha256(json.dumps(self.raw, sort_keys=True).encode()).hexdigest()


def _finite(name: str, t: torch.Tensor) -> torch.Tensor:
    if t.numel():
        low, high = torch.aminmax(t)
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise CheckpointError(
                f"tensor {name!r} holds NaN or infinite values",
                hint="the parent is damaged or diverged in training; no cut can repair it",
            )
    return t


def open_model(source: str | Path, *, revision: str | None = None) -> Model:
    """Open a checkpoint folder, a config.json, or a hub id. Reads the config and tensor index only.

    Raises SecateurError when the files are not a checkpoint this library can read.
    """
    found = resolve(source, revision=revision)
    if found.is_file():
        return Model(str(source), found.parent, read_config(found), None)
    raw = read_config(found)
    names = {p.name for p in found.iterdir()}
    only_config = not any(n.endswith((".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".index.json")) for n in names)
    if only_config:
        return Model(str(source), found, raw, None)
    packed = raw.get("quantization_config", {})
    store = open_quantized(found, packed) if is_packed(packed) else TensorStore.open(found)
    return Model(str(source), found, raw, store)


def _refuse_quantized(raw: Mapping[str, Any]) -> None:
    quantization = raw.get("quantization_config")
    if quantization and not is_packed(quantization):
        method = quantization.get("quant_method", "?") if isinstance(quantization, dict) else quantization
        raise ConfigError(
            f"config.json: the checkpoint is quantized ({method}); packed weights cannot be cut",
            hint="start from the full-precision parent, and quantize the smaller model afterwards",
        )


def _check_dtypes(store: TensorStore, anatomy: Anatomy) -> None:
    for name, info in store.tensors.items():
        if name in anatomy.tensors and info.dtype not in FLOATS:
            raise CheckpointError(
                f"tensor {name!r} has dtype {info.dtype}, expected one of {', '.join(FLOATS)}",
                hint="the file is quantized or damaged; start from the full-precision checkpoint",
            )
