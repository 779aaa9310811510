"""Weights are asked for in their order, as far as memory goes; nothing that is wrong with the folder matters."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from secateur.cli import fetch_ahead as module
from secateur.cli.fetch_ahead import fetch_ahead

SIZES = {"model-00001-of-00002.safetensors": 10_000, "model-00002-of-00002.safetensors": 7_000}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Fills the folder; what the kernel is asked for: file, first byte, end."""
    for name, size in {**SIZES, "consolidated.safetensors": 5_000, "config.json": 9}.items():
        (tmp_path / name).write_bytes(bytes(size))
    calls: list[tuple[str, int, int]] = []

    def note(fd: int, offset: int, nbytes: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        calls.append((Path(f"/proc/self/fd/{fd}").readlink().name, offset, offset + nbytes))

    monkeypatch.setattr(os, "posix_fadvise", note)
    monkeypatch.setattr(module, "STEP", 4096)
    return calls


@pytest.mark.parametrize("most", [0, 1, 9_000, 10_000, 13_000, 10**9])
def test_every_byte_once_in_order_up_to_the_bound(
    tmp_path: Path, asked: list[tuple[str, int, int]], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", most)
    thread = fetch_ahead(str(tmp_path))
    assert (thread is None) == (most == 0)
    if thread is not None:
        thread.join()
    got = [(name, byte) for name, start, end in asked for byte in range(start, end)]
    assert got == [(name, byte) for name, size in SIZES.items() for byte in range(size)][:most]


def test_little_memory_means_little_fetched(
    tmp_path: Path, asked: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_available", lambda: 20_000)
    thread = fetch_ahead(str(tmp_path))
    assert thread is not None
    thread.join()
    assert sum(end - start for _, start, end in asked) == 20_000 // module.SHARE


def test_what_is_no_folder_of_weights(tmp_path: Path, asked: list[tuple[str, int, int]]) -> None:
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "model.safetensors")
    piped = fetch_ahead(str(tmp_path / "pipe"))
    assert piped is not None
    piped.join(10)
    assert not piped.is_alive()
    for source in ("org/name", str(tmp_path / "none"), str(tmp_path / "config.json"), "bad\0name"):
        assert fetch_ahead(source) is None
    assert asked == []
