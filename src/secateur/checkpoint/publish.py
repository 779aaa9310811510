"""A folder appears at its destination whole, or not at all.

Everything is written into a hidden staging folder beside the destination, forced to disk, and renamed into place.
Staging folders are named ``.secateur-<kind>-<destination>-<machine>-<pid>-<random>``, so that a later run can tell
which of them a dead process left behind.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secateur.checkpoint.files import disk_error
from secateur.errors import UsageError

_NAME = re.compile(r"\.secateur-(staging|old)-([0-9a-f]{8})-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def publish(destination: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a staging folder; when the body ends well, it becomes ``destination`` in one step.

    Missing parents are created. On any exception the staging folder is removed. ``destination`` must not exist, or be
    an empty folder other than the working folder (UsageError); with ``overwrite`` it may be a checkpoint, which stays
    in place until the new one takes its place. CheckpointError if the disk refuses.
    """
    destination = _resolved(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        sweep(destination)
        _check_free(destination, overwrite)
        staging = destination.parent / _hidden_name("staging", destination)
        staging.mkdir()
    except OSError as cause:
        raise disk_error(cause, destination.parent) from cause
    try:
        yield staging
        sync_tree(staging)
        _check_free(destination, overwrite)
        _put_in_place(staging, destination)
        sync(destination.parent)
    except OSError as cause:
        raise disk_error(cause, Path(cause.filename or destination)) from cause
    finally:
        # After an exchange the old checkpoint lies here; after a plain rename nothing does.
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def scratch(destination: Path) -> Iterator[Path]:
    """An empty folder among the system's temporary files, for work towards ``destination``; removed at the end.

    What killed processes left there is removed first. CheckpointError if the disk refuses.
    """
    place = Path(tempfile.gettempdir()) / (_resolved(destination).name or "root")
    try:
        sweep(place)
        folder = place.parent / _hidden_name("staging", place)
        folder.mkdir(mode=0o700)
    except OSError as cause:
        raise disk_error(cause, place.parent) from cause
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(destination: Path) -> None:
    """Remove what dead processes of this machine and user left beside ``destination``.

    An old checkpoint that was moved aside by an overwrite which died before its last step is put back first.
    """
    for path in destination.parent.glob(".secateur-*"):
        match = _NAME.fullmatch(path.name)
        if match is None or match[3] != _machine() or _alive(int(match[4])):
            continue
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            continue
        if match[1] == "old" and match[2] != _digest(destination.name):
            continue
        if match[1] == "old" and not os.path.lexists(destination):
            path.rename(destination)
        else:
            shutil.rmtree(path, ignore_errors=True)


def sync(path: Path) -> None:
    """Force a file or folder to disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(folder: Path) -> None:
    """Force every file below ``folder`` to disk, then the folders, innermost first."""
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(place, name))
        sync(Path(place))


def _resolved(destination: Path) -> Path:
    try:
        return destination.expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as cause:
        raise UsageError(f"{str(destination)!r}: not a usable path: {cause}") from cause


def _check_free(destination: Path, overwrite: bool) -> None:
    try:
        destination.lstat()
    except FileNotFoundError:
        return
    if _standing_in(destination):  # the new folder takes its place, and nobody would stand in the new one
        raise UsageError(
            f"{destination}: is the working folder of this command, which a result would replace",
            hint="Name a folder inside it with --out.",
        )
    if not destination.is_dir():
        raise UsageError(f"{destination}: exists and is not a folder", hint="Choose another folder with --out.")
    if destination.is_mount():
        raise UsageError(f"{destination}: is a mount point", hint="Choose a folder inside it with --out.")
    if not any(destination.iterdir()):
        return
    if not overwrite:
        raise UsageError(f"{destination}: exists and is not empty", hint="Choose another folder with --out.")
    if not (destination / "config.json").is_file():
        raise UsageError(
            f"{destination}: holds no config.json, so it is not a checkpoint to overwrite",
            hint="Remove it yourself, or choose another folder with --out.",
        )


def _standing_in(folder: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(folder)
    except OSError:  # the working folder is gone
        return False


def _put_in_place(staging: Path, destination: Path) -> None:
    if not (destination.is_dir() and any(destination.iterdir())):
        staging.rename(destination)
    elif not _exchange(staging, destination):
        old = destination.parent / _hidden_name("old", destination)
        destination.rename(old)
        try:
            staging.rename(destination)
        except OSError:
            old.rename(destination)
            raise
        sync(destination.parent)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step (Linux renameat2); False where the kernel or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _hidden_name(kind: str, destination: Path) -> str:
    return f".secateur-{kind}-{_digest(destination.name)}-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"


def _machine() -> str:
    """Where a process id means something: the host and, on Linux, its process namespace (containers)."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return _digest(os.uname().nodename + namespace)


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
