"""A destination appears whole or not at all; what stands in the way is said before any work."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from secateur.checkpoint import (
    CODES,
    TensorSpec,
    publish,
    require_space,
    scratch,
    write_behind,
    write_json,
    write_tensors,
)
from secateur.checkpoint import publish as publish_function
from secateur.errors import CheckpointError, UsageError
from tests.checkpoint import tiny

publish_module = sys.modules[publish_function.__module__]


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.glob(".*")]


def test_the_destination_appears_at_the_end(tmp_path: Path) -> None:
    destination = tmp_path / "new" / "parents" / "child"
    with publish(destination) as staging:
        assert staging.parent == destination.parent
        made = tiny.write(staging)
        assert not destination.exists()
    assert tiny.holds(destination, made)
    assert hidden(destination.parent) == []
    assert destination.stat().st_mode == destination.parent.stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, CheckpointError])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), publish(tmp_path / "child") as staging:
        tiny.write(staging)
        raise error("stop")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_taken_over_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    with publish(tmp_path / "link") as staging:
        made = tiny.write(staging)
    assert tiny.holds(tmp_path / "empty", made)


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_the_working_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str) -> None:
    """Who stands in it would go on standing in the folder that is gone."""
    (tmp_path / "here" / inside).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / inside)
    out = Path(".." if inside else ".")
    with scratch(out) as beside:
        assert beside.is_dir() and beside.parent == Path(tempfile.gettempdir())
    with pytest.raises(UsageError, match="working folder"), publish(out, overwrite=True):
        pytest.fail("work began")
    assert Path.cwd() == tmp_path / "here" / inside


def test_what_is_in_the_way_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    for name, overwrite in [("file", False), ("file", True), ("full", False), ("full", True)]:
        with pytest.raises(UsageError, match=name), publish(tmp_path / name, overwrite=overwrite):
            pytest.fail("work began")
    assert (tmp_path / "file").read_text() == (tmp_path / "full" / "thesis.tex").read_text() == "mine"


def test_what_appears_during_the_work_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not empty"), publish(tmp_path / "child") as staging:
        tiny.write(staging)
        (tmp_path / "child").mkdir()
        (tmp_path / "child" / "theirs").touch()
    assert [path.name for path in (tmp_path / "child").iterdir()] == ["theirs"]
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("exchange", [True, False])
def test_overwriting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(publish_module, "_exchange", lambda one, other: False)
    old = tiny.write(tmp_path / "child", shard_bytes=40)
    with publish(tmp_path / "child", overwrite=True) as staging:
        assert tiny.holds(tmp_path / "child", old)
        write_tensors(staging, [TensorSpec("w", "F32", (2,))], lambda _: torch.ones(2))
        write_json(staging / "config.json", {"model_type": "tiny"})
    assert tiny.holds(tmp_path / "child", {"w": torch.ones(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["child"]


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_sweeping_takes_only_what_is_ours_and_dead(tmp_path: Path) -> None:
    destination = tmp_path / "child"
    ours = publish_module._hidden_name("staging", destination)
    dead = re.sub(rf"-{os.getpid()}-", f"-{dead_pid()}-", ours)
    machine = publish_module._machine()
    keep = [ours, dead.replace(machine, "0" * 8), ".secateur-staging-x", ".secateur-notes", ".git"]
    for name in (dead, *keep):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    other = tmp_path / "other"
    other.mkdir()
    link = dead[:-8] + "deadbeef"
    (tmp_path / link).symlink_to(other)
    publish_module.sweep(destination)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*keep, "other", link])


def test_an_interrupted_overwrite_is_undone(tmp_path: Path) -> None:
    destination = tmp_path / "child"
    name = publish_module._hidden_name("old", destination).replace(f"-{os.getpid()}-", f"-{dead_pid()}-")
    old = tiny.write(tmp_path / name)
    publish_module.sweep(tmp_path / "another")
    assert not destination.exists()
    publish_module.sweep(destination)
    assert tiny.holds(destination, old)
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("path", ["a\0b", "x" * 300, "~nobody-of-this-name/x"])
def test_unusable_paths(tmp_path: Path, path: str) -> None:
    with pytest.raises((UsageError, CheckpointError)), publish(tmp_path / path if "~" not in path else Path(path)):
        pytest.fail("work began")


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError), publish(tmp_path / "file" / "child"):
        pytest.fail("work began")


def big(count: int = 16) -> dict[str, torch.Tensor]:
    return {f"w{at:02d}": torch.full((1 << 18,), float(at)) for at in range(count)}


def publish_big(destination: Path) -> None:
    made = big()
    with publish(destination) as staging:
        specs = [TensorSpec(name, CODES[tensor.dtype], tuple(tensor.shape)) for name, tensor in made.items()]
        write_tensors(staging, specs, lambda spec: made[spec.name], shard_bytes=6 << 20)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 8 MB, half of what ``publish_big`` writes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", place]).returncode:
        pytest.skip("NOT TESTED on a full disk: mounting a tmpfs needs root; the file size limit stands in for it")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no space left on the device \(\d+ bytes needed, \d+ bytes free\)"):
        publish_big(small_disk / "child")
    assert list(small_disk.iterdir()) == []
    with pytest.raises(CheckpointError, match=r"16777216 bytes needed, \d+ bytes free"):
        require_space(small_disk / "not" / "yet" / "there", 16 << 20)
    require_space(small_disk, 1 << 20)


def test_a_read_only_disk_and_a_mount_point(small_disk: Path) -> None:
    with pytest.raises(UsageError, match="mount point"), publish(small_disk):
        pytest.fail("work began")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(CheckpointError, match="Read-only"), publish(small_disk / "child"):
        pytest.fail("work began")


def test_a_file_size_limit(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, hard))
    try:
        with pytest.raises(CheckpointError, match="refuses a file this large"):
            publish_big(tmp_path / "child")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", range(0, 19, 3))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_the_nth_write_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, code: int) -> None:
    calls = iter(range(10**6))

    def fail(fd: int, data: memoryview) -> int:
        if next(calls) == failing:
            raise OSError(code, os.strerror(code))
        return os.write(fd, data)

    monkeypatch.setattr(write_behind, "BUFFER", 256 << 10)
    replace_write(monkeypatch, fail)
    with pytest.raises(CheckpointError, match="no space left" if code != errno.EIO else "Input/output error"):
        publish_big(tmp_path / "child")
    assert list(tmp_path.iterdir()) == []


def replace_write(monkeypatch: pytest.MonkeyPatch, write: Callable[[int, memoryview], int]) -> None:
    """Only the writer's own calls: pytest and torch write, too."""

    class Os:
        def __getattr__(self, name: str) -> object:
            return write if name == "write" else getattr(os, name)

    monkeypatch.setattr(write_behind, "os", Os())


@pytest.mark.parametrize(
    ("raised", "seen"), [(OSError(errno.ENOSPC, ""), CheckpointError), (MemoryError(), MemoryError)]
)
def test_a_waiting_producer_hears_of_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, seen: type[Exception]
) -> None:
    def fail(self: write_behind.WriteBehind, data: memoryview) -> None:
        raise raised

    monkeypatch.setattr(write_behind.WriteBehind, "_write", fail)
    monkeypatch.setattr(write_behind, "BUFFER", 4)
    reached = 0
    with pytest.raises(seen), write_behind.WriteBehind(tmp_path / "file") as out:
        for _ in range(100):
            out.put(memoryview(b"1234"))
            reached += 1
    assert reached <= write_behind.BUFFERS


@pytest.mark.parametrize("most", [4096, 100_001])
def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """After a write that ends between two blocks the file system refuses to go on directly."""
    monkeypatch.setattr(write_behind, "BUFFER", 1 << 20)
    replace_write(monkeypatch, lambda fd, data: os.write(fd, data[:most]))
    publish_big(tmp_path / "child")
    assert tiny.holds(tmp_path / "child", big())


@pytest.mark.parametrize("sizes", [[0, 1, 4095], [4096], [4096, 8192, 1], [1, 30_000, 0, 5000], [65536] * 5])
@pytest.mark.parametrize("flag", [None, 0])
def test_pieces_of_any_size_come_out_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int], flag: int | None
) -> None:
    """Against one plain write; with ``flag`` as on a system without O_DIRECT."""
    monkeypatch.setattr(write_behind, "BUFFER", 8192)
    if flag is not None:
        monkeypatch.setattr(os, "O_DIRECT", flag)
    pieces = [os.urandom(size) for size in sizes]
    with write_behind.WriteBehind(tmp_path / "file") as out:
        for piece in pieces:
            out.put(memoryview(piece))
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)


def test_what_was_put_may_be_changed(tmp_path: Path) -> None:
    data = bytearray(b"before")
    with write_behind.WriteBehind(tmp_path / "file") as out:
        out.put(memoryview(data))
        data[:] = b"after!"
    assert (tmp_path / "file").read_bytes() == b"before"


def test_a_failing_fsync_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(publish_module, "sync", fail)
    with pytest.raises(CheckpointError, match="Input/output error"):
        publish_big(tmp_path / "child")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_producer_stops_the_writer(tmp_path: Path) -> None:
    made = big()

    def produce(spec: TensorSpec) -> torch.Tensor:
        if spec.name == "w09":
            raise ZeroDivisionError
        return made[spec.name]

    specs = [TensorSpec(name, "F32", tuple(tensor.shape)) for name, tensor in made.items()]
    with pytest.raises(ZeroDivisionError), publish(tmp_path / "child") as staging:
        write_tensors(staging, specs, produce)
    assert list(tmp_path.iterdir()) == []
