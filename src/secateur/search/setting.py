"""Where and how a latency was measured: what must be equal for a table to be used again."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from secateur.errors import UsageError
from secateur.evaluation.load import Place
from secateur.model import Model
from secateur.search.resources import Workload


@dataclass(frozen=True, slots=True)
class Setting:
    """``config``: fingerprint of the parent's config; ``fast``: whether our own kernels ran."""

    processor: str
    cores: int
    device: str
    threads: int
    torch: str
    transformers: str
    dtype: str
    fast: bool
    context: int
    batch: int
    model_type: str
    config: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def differences(self, other: Setting) -> list[str]:
        """'field: here, there' for every field that differs."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{name} {mine[name]!r}, there {theirs[name]!r}" for name in mine if mine[name] != theirs[name]]


def setting_of(model: Model, workload: Workload, place: Place) -> Setting:
    """This machine as it is now, for ``model``. Raises UsageError for a device or dtype that cannot be used."""
    import transformers

    place = place.resolved()
    on_gpu = place.device.startswith("cuda")
    return Setting(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        device=torch.cuda.get_device_name(place.device) if on_gpu else place.device,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        dtype=place.dtype,
        fast=place.fast,
        context=workload.context,
        batch=workload.batch,
        model_type=model.anatomy.family.model_type,
        config=model.config_sha256,
    )


def from_json(data: Any, path: Path) -> Setting:
    """Inverse of :meth:`Setting.to_json`, checked: raises UsageError naming ``path`` and the field."""
    if not isinstance(data, Mapping):
        raise UsageError(f"{path}: 'setting' is {data!r}, expected an object")
    kinds = {"str": str, "int": int, "bool": bool}
    for name, kind in Setting.__annotations__.items():
        if type(data.get(name)) is not kinds[kind]:
            raise UsageError(f"{path}: setting {name!r} is {data.get(name)!r}, expected a value of type {kind}")
    return Setting(**{name: data[name] for name in Setting.__annotations__})


def _processor() -> str:
    """The processor's own name where the system tells it (Linux), else what Python knows."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
