"""Hashes of whole files, equal to the plain ones however the reader moves."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from secateur.checkpoint import FileHasher, TensorStore
from secateur.errors import CheckpointError
from tests.checkpoint import tiny
from tests.checkpoint.test_store import hub_snapshot


def plain(files: dict[str, Path]) -> dict[str, str]:
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


@pytest.mark.parametrize("lead", [1, 200, 1 << 30])
@pytest.mark.parametrize("order", [1, -1])
def test_digests_while_reading(tmp_path: Path, lead: int, order: int) -> None:
    tiny.write(tmp_path, shard_bytes=40)
    with TensorStore.open(tmp_path) as store, FileHasher(store.files, lead_bytes=lead) as hasher:
        store.watcher = hasher.follow
        for name in list(store.tensors)[::order]:
            store.read(name)
        assert hasher.digests() == plain(store.files)
        assert list(hasher.digests()) == list(store.files)


def test_digests_without_reading_and_leaving_early(tmp_path: Path) -> None:
    tiny.write(tmp_path, shard_bytes=40)
    files = TensorStore.open(tmp_path).files
    with FileHasher(files, lead_bytes=1) as hasher:
        assert hasher.digests() == plain(files)
    with FileHasher(files, lead_bytes=0):
        pass  # never followed, never asked: the thread must end with the block


@pytest.mark.parametrize("shared", [False, True])
def test_the_hub_cache_names_its_hashes(tmp_path: Path, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared blob is named by another hash of 64 digits; only the link in the repository is a sha256."""
    files = TensorStore.open(hub_snapshot(tmp_path, shared=shared)).files
    monkeypatch.setattr(FileHasher, "_hash", lambda *_: pytest.fail("read a file whose hash is known"))
    with FileHasher(files) as hasher:
        assert hasher.digests() == plain(files)


def test_a_file_that_vanishes(tmp_path: Path) -> None:
    tiny.write(tmp_path, shard_bytes=40)
    files = TensorStore.open(tmp_path).files
    with FileHasher(files, lead_bytes=0) as hasher:
        list(files.values())[-1].unlink()
        with pytest.raises(CheckpointError, match="no such file"):
            hasher.digests()
    with pytest.raises(CheckpointError), FileHasher(files):
        pytest.fail("work began")
