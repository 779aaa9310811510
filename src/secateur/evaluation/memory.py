"""How much memory this process may still take, as the kernel, a container and the shell say."""

from __future__ import annotations

import resource
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def available() -> int | None:
    """Bytes: the least of free memory and of what the control group and ulimit leave; None where nothing says."""
    found = [n for n in (_free(), _group(), _limits()) if n is not None]
    return min(found) if found else None


def _free() -> int | None:
    return _table(Path("/proc/meminfo")).get("MemAvailable")


def _group() -> int | None:
    """Control groups, version 2: the limit of the group this process sees as its root."""
    try:
        most, used = (_GROUP / "memory.max").read_text().strip(), int((_GROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if not most.isdigit() else max(0, int(most) - used)


def _limits() -> int | None:
    """``ulimit -v`` bounds address space, ``-d`` private writable memory."""
    mine = _table(Path("/proc/self/status"))
    left = []
    for what, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most = resource.getrlimit(what)[0]
        if most != resource.RLIM_INFINITY and used in mine:
            left.append(max(0, most - mine[used]))
    return min(left) if left else None


def _table(path: Path) -> dict[str, int]:
    """Lines ``name: n kB`` as bytes."""
    found = {}
    try:
        for line in path.read_text().splitlines():
            name, _, rest = line.partition(":")
            words = rest.split()
            if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
                found[name] = int(words[0]) << 10
    except OSError:
        pass
    return found


__all__ = ["available"]
