"""Repaired tensors on disk until the child is written: half of a model's weights may change, and memory holds a layer.

Each is kept in the dtype the child stores it in, which is the one its repair was judged in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from secateur.checkpoint.files import disk_error


class Kept(MutableMapping[str, torch.Tensor]):
    """Tensors by name in ``folder``, one file each. ``dtype(name)``: in what they are kept.

    ``names``: what a run that resumes had kept; other files in the folder are of no account.
    """

    def __init__(self, folder: Path, dtype: Callable[[str], torch.dtype], names: Sequence[str] = ()) -> None:
        self.folder, self.dtype = folder, dtype
        self._names = dict.fromkeys(names)

    def __setitem__(self, name: str, tensor: torch.Tensor) -> None:
        path = self._path(name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = tensor.detach().to("cpu", self.dtype(name)).contiguous()
            save_file({name: kept}, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
        except OSError as cause:
            raise disk_error(cause, path) from cause
        self._names[name] = None

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: torch.Tensor = load_file(self._path(name))[name]
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __delitem__(self, name: str) -> None:
        del self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _path(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.safetensors"


__all__ = ["Kept"]
