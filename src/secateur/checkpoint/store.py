"""Tensors of a checkpoint folder, read one at a time.

Bytes are read with ``preadv`` into fresh anonymous memory, not mapped: a mapped file that is truncated or fails under
us kills the process with SIGBUS, an in-place operation on a read-only mapping with SIGSEGV, and mapped pages count as
resident until they are dropped.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from secateur.checkpoint.buffers import BufferPool
from secateur.checkpoint.files import open_regular, read_into, read_small, short, status
from secateur.checkpoint.header import TensorInfo, read_header
from secateur.checkpoint.hf_cache import contained
from secateur.checkpoint.strict_json import parse_json
from secateur.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
MAX_INDEX = 100 << 20
"""Bytes of an index; a model of 100,000 tensors needs about 10 MB."""

Watcher = Callable[[str, int], None]
"""Called with a file's name and the offset up to which its bytes have been read."""


class TensorStore:
    """The tensors of one folder. ``tensors`` is ordered by file, then offset; no data is read before ``read``."""

    def __init__(self, folder: Path, files: dict[str, Path], tensors: dict[str, TensorInfo]) -> None:
        self.folder = folder
        self.files = files
        self.tensors = tensors
        self.watcher: Watcher | None = None
        self.pool = BufferPool()
        self._stamps = {name: _stamp(status(path)) for name, path in files.items()}

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read and check every header in ``folder``.

        ``model.safetensors`` wins over ``model.safetensors.index.json``, as in transformers. CheckpointError when the
        weights are missing, pickled, or disagree with their index.
        """
        if not folder.is_dir():
            raise CheckpointError(f"{short(str(folder))}: no such folder")
        weight_map = None
        if os.path.lexists(folder / SINGLE):
            names = [SINGLE]
        elif os.path.lexists(folder / INDEX):
            weight_map = _read_index(folder)
            names = sorted(set(weight_map.values()))
        else:
            raise _no_weights(folder)
        store = cls(folder, {name: contained(folder, name) for name in names}, {})
        for path in store.files.values():
            store._add(read_header(path)[1])
        if weight_map is not None:
            _check_index(folder / INDEX, weight_map, store.tensors)
        return store

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors, headers not counted."""
        return sum(info.nbytes for info in self.tensors.values())

    def read(self, name: str) -> torch.Tensor:
        """The whole tensor ``name``, in memory of its own (free to be modified)."""
        info = self._info(name)
        return self._load(info, info.begin, info.shape)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows ``start`` to ``stop`` (exclusive) of dimension 0, of shape ``(stop - start, *shape[1:])``."""
        info = self._info(name)
        if not info.shape or not 0 <= start <= stop <= info.shape[0]:
            raise CheckpointError(f"tensor {short(name)} of shape {list(info.shape)} has no rows {start} to {stop}")
        row = info.nbytes // info.shape[0] if info.shape[0] else 0
        return self._load(info, info.begin + start * row, (stop - start, *info.shape[1:]))

    def close(self) -> None:
        """Stop reporting to the watcher. Files are opened for each read, so no descriptor is left to close."""
        self.watcher = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, infos: list[TensorInfo]) -> None:
        for info in infos:
            if info.name in self.tensors:
                other = self.tensors[info.name].file
                raise CheckpointError(f"{self.folder}: tensor {short(info.name)} is in both {other} and {info.file}")
            self.tensors[info.name] = info

    def _info(self, name: str) -> TensorInfo:
        try:
            return self.tensors[name]
        except KeyError:
            near = difflib.get_close_matches(name, self.tensors, n=3)
            raise CheckpointError(
                f"{self.folder}: no tensor {short(name)}", hint=f"Close to it: {', '.join(near)}" if near else None
            ) from None

    def _load(self, info: TensorInfo, begin: int, shape: tuple[int, ...]) -> torch.Tensor:
        try:
            tensor = self.pool.empty(shape, info.torch_dtype)
        except (RuntimeError, MemoryError) as cause:
            raise CheckpointError(
                f"tensor {short(info.name)}: {short(list(shape))} of {info.dtype} does not fit into memory"
            ) from cause
        if tensor.nbytes:
            path = self.files[info.file]
            fd = open_regular(path)
            try:
                if _stamp(os.fstat(fd)) != self._stamps[info.file]:
                    raise CheckpointError(f"{path}: changed since it was opened", hint="Run again.")
                read_into(fd, tensor.reshape(-1).view(torch.uint8).numpy().data, begin, path)
            finally:
                os.close(fd)
        if self.watcher is not None:
            self.watcher(info.file, begin + tensor.nbytes)
        return tensor


def _stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _read_index(folder: Path) -> dict[str, str]:
    path = contained(folder, INDEX)
    index = parse_json(read_small(path, MAX_INDEX), path=path, error=CheckpointError, unique=True)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: weight_map is {short(weight_map)}, expected an object tensor -> file")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{path}: tensor {short(name)} is in {short(file)}, expected the name of a .safetensors file"
            )
    return weight_map


def _check_index(path: Path, weight_map: dict[str, str], tensors: dict[str, TensorInfo]) -> None:
    """The index and the shards must name the same tensors in the same files."""
    absent = [name for name, file in weight_map.items() if name not in tensors or tensors[name].file != file]
    if absent:
        first = absent[0]
        raise CheckpointError(
            f"{path}: {len(absent)} tensors are not in the shard the index names: {_few(absent)} "
            f"(the first should be in {short(weight_map[first])})",
            hint="The index and the shards are from different checkpoints, or a shard is damaged; download them again.",
        )
    unlisted = [name for name in tensors if name not in weight_map]
    if unlisted:
        raise CheckpointError(
            f"{path}: {len(unlisted)} tensors of the shards are not in the index: {_few(unlisted)}",
            hint="The index and the shards are from different checkpoints; download them again.",
        )


def _few(names: list[str]) -> str:
    return ", ".join(map(short, names[:3])) + (", ..." if len(names) > 3 else "")


def _no_weights(folder: Path) -> CheckpointError:
    try:
        present = sorted(path.name for path in folder.iterdir())
    except OSError as cause:
        return CheckpointError(f"{folder}: cannot be listed: {cause.strerror}")
    pickles = [name for name in present if name.endswith(PICKLES)]
    others = [name for name in present if name.endswith(".safetensors")]
    if others:
        return CheckpointError(
            f"{folder}: no {SINGLE} or {INDEX}, only {_few(others)}",
            hint="An adapter must be merged into its base model first. If one file holds the whole model, rename it to "
            f"{SINGLE}.",
        )
    if pickles:
        return CheckpointError(
            f"{folder}: weights only as pickles ({_few(pickles)}), which can run code when loaded and are never read",
            hint="Load and save the model once with transformers (save_pretrained writes safetensors), or take the "
            "hub's converted copy: revision refs/pr/N of the pull request by its safetensors conversion bot.",
        )
    return CheckpointError(f"{folder}: no weights: neither {SINGLE} nor {INDEX}")
