"""``secateur report``: one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur import api
from secateur.cli.common import human_bytes, out
from secateur.cli.eval import (
    Batch,
    Device,
    DtypeOption,
    Fast,
    Limit,
    Rounds,
    Samples,
    Speed,
    Stride,
    Window,
    progress,
)  # fmt: skip

NAME = "report"
HELP = """Write one HTML page: numbers, charts, shapes, curves, samples and the audit. It needs no network to be read.

Results files are shown as they are; checkpoints are measured first, the first one as the parent of the others.

Examples:

    secateur report results.json --out report.html

    secateur report ./checkpoint ./child ./healed --text heldout.txt --speed --out report.html"""


def run(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="RESULT_OR_CHECKPOINT...", help="files of `secateur eval --out`, folders, hub ids"),
    ],
    save: Annotated[Path, typer.Option("--out", help="the page to write; replaced if it exists")],
    text: Annotated[list[str] | None, typer.Option(help="held-out text to measure checkpoints on")] = None,
    parent: Annotated[str | None, typer.Option(help="the model the checkpoints were cut from")] = None,
    metrics: Annotated[list[Path] | None, typer.Option(help="metrics.jsonl of a healing that lies elsewhere")] = None,
    importance: Annotated[list[Path] | None, typer.Option(help="importance.json that lies elsewhere")] = None,
    limit: Limit = None,
    window: Window = 0,
    stride: Stride = 0,
    batch: Batch = 8,
    device: Device = "auto",
    dtype: DtypeOption = "auto",
    fast: Fast = False,
    speed: Speed = False,
    rounds: Rounds = 5,
    samples: Samples = 3,
) -> None:
    with progress() as told:
        found = api.report(
            sources, text or (), out=save, parent=parent, metrics=metrics or (), importance=importance or (),
            limit=limit, window=window, stride=stride, batch=batch, samples=samples, device=device, dtype=dtype,
            fast=fast, speed=speed, rounds=rounds, progress=told,
        )  # fmt: skip
    out.print(
        f"wrote {save} ({human_bytes(save.stat().st_size)}): {', '.join(m['name'] for m in found.models)}",
        soft_wrap=True,
        markup=False,
    )
    for note in found.notes:
        out.print(f"note: {note}", soft_wrap=True, markup=False)
