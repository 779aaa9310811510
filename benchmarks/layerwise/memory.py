"""Peak memory of a layer-wise method against depth: one shape, so many layers and four times as many.

python -m benchmarks.layerwise.memory [--units 1 4] [--method wanda]

Random bf16 weights of a Nemotron-H shape; the resident peak of each command is what the kernel reports. The text is the
same, so hidden states are as well.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from pathlib import Path

from benchmarks.stream_calibrate import CONFIG, UNIT, limited, make_parent

SIZES = {**CONFIG, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_key_value_heads": 4,
         "mamba_num_heads": 16}  # fmt: skip
NO_LIMIT = 1 << 40


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m benchmarks.layerwise.memory")
    p.add_argument("--units", type=int, nargs=2, default=[1, 4], help="groups of ten layers")
    p.add_argument("--method", default="wanda")
    args = p.parse_args()
    print("| layers | checkpoint | resident peak | seconds |\n|---:|---:|---:|---:|")
    for units in args.units:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            given = (work / "parent", work / "text.txt", UNIT * units, SIZES)
            maker = multiprocessing.get_context("spawn").Process(target=make_parent, args=given)
            maker.start()
            maker.join()
            size = sum(f.stat().st_size for f in (work / "parent").glob("*.safetensors"))
            command = [
                sys.executable, "-m", "secateur", "sparsify", str(work / "parent"), "--method", args.method,
                "--text", str(work / "text.txt"), "--samples", "8", "--length", "64", "--out", str(work / "out"),
            ]  # fmt: skip
            code, seconds, peak = limited(NO_LIMIT, command)
            if code:
                return 1
            print(
                f"| {len(UNIT) * units} | {size / 1e6:,.0f} MB | {peak / 2**20:,.0f} MiB | {seconds:.0f} |", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
