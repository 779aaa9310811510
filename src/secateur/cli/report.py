"""``secateur report``: one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    check_file,
    progress,
    settings_of,
)  # fmt: skip
from secateur.errors import UsageError

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
    check_file(save, "--out")
    if save.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out {save}: the page is HTML; name it *.html")
    from secateur.reporting import collect, write

    settings = settings_of(limit, window, stride, batch, device, dtype, fast, speed, rounds, samples)
    with progress() as told:
        found = collect(
            sources, text or (), parent=parent, metrics=metrics or (), importance=importance or (), settings=settings,
            progress=told,
        )  # fmt: skip
    nbytes = write(found, save)
    out.print(
        f"wrote {save} ({human_bytes(nbytes)}): {', '.join(m['name'] for m in found.models)}",
        soft_wrap=True,
        markup=False,
    )
    for note in found.notes:
        out.print(f"note: {note}", soft_wrap=True, markup=False)
