"""Run the README's shell commands in order, as a reader would, in a scratch folder. Lines marked `# hub` are skipped
loudly: they need a model from the hub. `make` lines run in the project itself (`make test` is left to the caller)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def blocks(text: str) -> list[str]:
    """Commands of every ```sh block."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def main() -> int:
    env = os.environ | {"PATH": f"{ROOT / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as scratch:
        for command in blocks((ROOT / "README.md").read_text()):
            if command.startswith("make test") or "# hub" in command:
                print(f"README, not run here: {command}", flush=True)
                continue
            print(f"README: {command}", flush=True)
            where = ROOT if command.startswith("make") else Path(scratch)
            done = subprocess.run(command, shell=True, cwd=where, env=env, check=False, timeout=1800)
            if done.returncode:
                print(f"README command failed with exit code {done.returncode}: {command}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
