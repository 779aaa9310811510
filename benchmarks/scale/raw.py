"""What the road costs at least: block forwards of the same tokens, and the bytes read and written. A worker.

    python -m benchmarks.scale.raw forward MODEL --samples N --length L --batch B
    python -m benchmarks.scale.raw read FOLDER
    python -m benchmarks.scale.raw write FOLDER --bytes N

Prints one JSON object with ``seconds``. Forwards are timed without reading, casts or observers: what the blocks
themselves take. Reading drops the pages first, so that it meets the disk; writing ends with fsync.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

CHUNK = 16 << 20


def forward(model: Path, samples: int, length: int, batch: int) -> dict[str, float]:
    import torch

    from secateur.calibration.walker import open_stream
    from secateur.model import open_model

    with open_model(model) as opened:
        ids = torch.randint(0, 256, (samples, length), generator=torch.Generator().manual_seed(0))
        stream = open_stream(opened, list(ids.split(batch)))
        seconds = 0.0
        for index in range(opened.anatomy.n_layers):
            with stream.loaded(index) as layer:
                began = time.perf_counter()
                stream.advance(layer)
                seconds += time.perf_counter() - began
    return {"seconds": seconds, "tokens": samples * length}


def read(folder: Path) -> dict[str, float]:
    forget(folder)
    buffer, total, began = bytearray(CHUNK), 0, time.perf_counter()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while n := file.readinto(buffer):
                total += n
    return {"seconds": time.perf_counter() - began, "bytes": total}


def write(folder: Path, nbytes: int) -> dict[str, float]:
    path, buffer, left = folder / "raw-write", memoryview(bytearray(os.urandom(1 << 20) * 16)), nbytes
    began = time.perf_counter()
    try:
        with path.open("wb", buffering=0) as file:
            while left > 0:
                left -= file.write(buffer[:left])
            os.fsync(file.fileno())
        return {"seconds": time.perf_counter() - began, "bytes": nbytes}
    finally:
        path.unlink(missing_ok=True)


def forget(folder: Path) -> None:
    """Write back and drop the folder's pages, so that the next reader meets the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["forward", "read", "write"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--bytes", type=int, default=0)
    args = parser.parse_args()
    if args.what == "forward":
        found = forward(args.folder, args.samples, args.length, args.batch)
    else:
        found = read(args.folder) if args.what == "read" else write(args.folder, args.bytes)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
