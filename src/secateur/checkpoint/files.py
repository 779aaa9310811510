"""Opening files nobody vouches for, and turning the operating system's errors into ours.

POSIX only (Linux, macOS): positional reads and writes, directory fsync and atomic rename are what the rest stands on.
"""

from __future__ import annotations

import errno
import os
import reprlib
import shutil
import stat
from pathlib import Path

from secateur.errors import CheckpointError, SecateurError

MAX_IO = 1 << 30
"""Bytes handed to one read or write call; Linux moves at most 2 GiB - 4 KiB at once."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_ENTRY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_shortener = reprlib.Repr()
_shortener.maxstring = _shortener.maxother = _shortener.maxlong = 80


def short(value: object) -> str:
    """``repr`` of a value from an untrusted file, cut to a length a message can carry and safe to print."""
    return _shortener.repr(value).encode("ascii", "backslashreplace").decode("ascii")


def open_regular(path: Path, error: type[SecateurError] = CheckpointError) -> int:
    """Open ``path`` for reading and return the descriptor; anything but a regular file is refused.

    Non-blocking, because opening a FIFO would otherwise wait for a writer for ever.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, ValueError) as cause:
        raise error(f"{short(str(path))}: cannot be opened: {_reason(cause)}") from cause
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise error(f"{path}: not a regular file")
    return fd


def status(path: Path) -> os.stat_result:
    """``stat`` of a file that was there a moment ago."""
    try:
        return path.stat()
    except OSError as cause:
        raise CheckpointError(f"{path}: cannot be reached: {_reason(cause)}") from cause


def read_some(fd: int, view: memoryview, offset: int, path: Path) -> int:
    """Read at most ``len(view)`` bytes from ``offset``; returns how many, 0 at the end of the file."""
    try:
        return os.preadv(fd, [view[:MAX_IO]], offset)
    except OSError as cause:
        raise CheckpointError(f"{path}: reading at byte {offset} failed: {_reason(cause)}") from cause


def read_ahead(fd: int, offset: int, nbytes: int) -> None:
    """Have the kernel fetch these bytes into the page cache meanwhile; a hint, where the system knows it."""
    if nbytes > 0 and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, offset, nbytes, os.POSIX_FADV_WILLNEED)


def read_into(fd: int, view: memoryview, offset: int, path: Path) -> None:
    """Fill ``view`` from ``offset`` or raise; a file that ends early has changed since its header was read."""
    done = 0
    while done < len(view):
        count = read_some(fd, view[done:], offset + done, path)
        if count == 0:
            raise CheckpointError(
                f"{path}: ends at byte {offset + done}, expected at least {offset + len(view)}",
                hint="The file was truncated; download or copy it again.",
            )
        done += count


def read_small(path: Path, limit: int, error: type[SecateurError] = CheckpointError) -> bytes:
    """The whole of a small text file, at most ``limit`` bytes."""
    fd = open_regular(path, error)
    with os.fdopen(fd, "rb") as file:
        size = os.fstat(fd).st_size
        if size > limit:
            raise error(f"{path}: {size} bytes, expected at most {limit}")
        try:
            return file.read(min(limit, size + 1))  # Python takes memory for as much as it is asked for
        except OSError as cause:
            raise error(f"{path}: cannot be read: {_reason(cause)}") from cause


def disk_error(cause: OSError, path: Path, *, needed: int | None = None) -> CheckpointError:
    """The error for a failed write below ``path``: bytes needed and free when space ran out."""
    if cause.errno in _FULL:
        want = "" if needed is None else f"{needed} bytes needed, "
        return CheckpointError(
            f"{path}: no space left on the device ({want}{free_bytes(path)} bytes free)",
            hint="Free some space or choose another disk with --out.",
        )
    if cause.errno == errno.EFBIG:
        return CheckpointError(
            f"{path}: the file system or a process limit refuses a file this large",
            hint="Write smaller shards, or raise the file size limit (ulimit -f).",
        )
    if cause.errno in _NO_ENTRY:
        return CheckpointError(
            f"{path}: cannot be written: {_reason(cause)}", hint="Choose a folder you may write to with --out."
        )
    return CheckpointError(f"{path}: cannot be written: {_reason(cause)}")


def free_bytes(path: Path) -> int:
    """Bytes an unprivileged user may still write on the file system of ``path`` (or of its nearest parent)."""
    for place in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return 0


def require_space(path: Path, nbytes: int) -> None:
    """Refuse before any work starts if ``nbytes`` will not fit on the file system of ``path``."""
    free = free_bytes(path)
    if nbytes > free:
        raise CheckpointError(
            f"{path}: {nbytes} bytes needed, {free} bytes free",
            hint="Free some space or choose another disk with --out.",
        )


def _reason(cause: Exception) -> str:
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__
