"""``secateur repair``: closed-form repair of a freshly cut child."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from secateur import api
from secateur.cli import options
from secateur.cli.calibrate import bars
from secateur.cli.common import out

NAME = "repair"
HELP = """Repair a cut child in closed form: norm factors, and least squares for what writes the residual stream.

Each repair is fitted on the compressed stream and stays only if it lowers the layer's error on other text.

Example:

    secateur repair ./child --parent ./checkpoint --text books/ --out ./repaired"""


def run(
    child: Annotated[str, typer.Argument(help="what `secateur prune` wrote")],
    parent: Annotated[str, typer.Option(help="the checkpoint it was cut from")],
    text: Annotated[list[str], typer.Option(help="text files, folders, JSONL, parquet or hf://owner/name; repeatable")],
    save: options.Result,
    methods: Annotated[
        list[str], typer.Option("--method", help="norm, least-squares; repeatable")
    ] = api.REPAIR_METHODS,  # type: ignore[assignment]
    samples: Annotated[int, typer.Option(min=2, help="windows of text")] = api.REPAIR_SAMPLES,
    length: options.Length = api.REPAIR_LENGTH,
    batch: options.Batch = 4,
    seed: options.Seed = 0,
    damp: Annotated[
        float | None,
        typer.Option(min=0, help="pull towards the cut weights, relative to the Gram's scale; default: chosen by text"),
    ] = None,
    feedback: Annotated[bool, typer.Option(help="let a layer make up for what earlier layers lost")] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    journal: Annotated[Path | None, typer.Option(help="folder from which an interrupted run resumes")] = None,
) -> None:
    with bars() as progress:
        api.repair(
            child, text, parent=parent, out=save, methods=methods, samples=samples, length=length, batch=batch,
            seed=seed, damp=damp, feedback=feedback, device=device, journal=journal, progress=progress,
        )  # fmt: skip
    print_attempts(json.loads((save / "secateur.json").read_text(encoding="utf-8"))["repair"]["attempts"])
    out.print(f"wrote {save}", soft_wrap=True)


def print_attempts(attempts: Sequence[Mapping[str, Any]]) -> None:
    """What each repair bought: relative error of the layer's output on text it was not fitted on."""
    table = Table("layer", "tensor", "repair", "damp", "before", "after", "", box=None, header_style="bold")
    for r in attempts:
        verdict = "[green]kept[/]" if r["applied"] else "[dim]undone[/]"
        damp = "" if r.get("damp") is None else f"{r['damp']:.2g}"
        row = (str(r["layer"]), r["tensor"], r["method"], damp, f"{r['before']:.3e}", f"{r['after']:.3e}", verdict)
        table.add_row(*row)
    out.print(table)
