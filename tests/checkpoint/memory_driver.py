"""Run by test_crashes.py in a process of its own: streams 400 MB from one checkpoint into another, or holds them.

Usage: python -m tests.checkpoint.memory_driver FOLDER stream|hold
Prints by how many bytes the peak of resident memory (Linux VmHWM) rose.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from secateur.checkpoint import FileHasher, TensorSpec, TensorStore, write_tensors

COUNT, SIDE = 20, 10_000_000


def make_sparse(folder: Path) -> None:
    """COUNT tensors of SIDE bf16 zeros; the file has no blocks, so making it costs nothing."""
    folder.mkdir(parents=True)
    nbytes = 2 * SIDE
    header = {
        f"w{at:02d}": {"dtype": "BF16", "shape": [SIDE], "data_offsets": [at * nbytes, (at + 1) * nbytes]}
        for at in range(COUNT)
    }
    raw = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + COUNT * nbytes)


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def main(folder: Path, how: str) -> None:
    make_sparse(folder / "parent")
    (folder / "child").mkdir()
    before = peak_bytes()
    store = TensorStore.open(folder / "parent")
    if how == "hold":
        held = [store.read(name) for name in store.tensors]
        print(peak_bytes() - before, len(held))
        return
    with FileHasher(store.files) as hasher:
        store.watcher = hasher.follow
        specs = [TensorSpec(info.name, info.dtype, info.shape) for info in store.tensors.values()]
        write_tensors(folder / "child", specs, lambda spec: store.read(spec.name))
        hasher.digests()
    print(peak_bytes() - before)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
