"""``secateur sparsify``: zeros in every linear, placed and made up for without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from secateur import api
from secateur.cli import options
from secateur.cli.calibrate import bars
from secateur.cli.common import err, out

NAME = "sparsify"
HELP = """Set a share of every linear to zero - anywhere (50%) or 2 of every 4 inputs (2:4) - and make up for it.

Methods: magnitude (needs no text), wanda, sparsegpt, obc, mrp, swap, chita, block. Later layers are calibrated on the
outputs of sparse earlier ones. Every linear is in the audit; `secateur distill` keeps the zeros.

Example:

    secateur sparsify ./checkpoint --method mrp --pattern 2:4 --text books/ --out ./sparse"""


def run(
    model: options.Checkpoint,
    save: options.Result,
    text: Annotated[
        list[str] | None,
        typer.Option(help="text files, folders, JSONL, parquet or hf://owner/name; repeatable; magnitude needs none"),
    ] = None,
    method: Annotated[str, typer.Option(help="magnitude, wanda, sparsegpt, obc, mrp, swap, chita or block")] = "mrp",
    pattern: Annotated[str, typer.Option(help="50%: half of all entries go; 2:4: two of every four stay")] = "50%",
    scope: Annotated[
        Literal["row", "layer", "block"] | None, typer.Option(help="where a share is counted [default: the method's]")
    ] = None,
    variant: Annotated[
        Literal["SS", "SM", "MS", "MM"] | None,
        typer.Option(help="mrp: mask, then compensation, single or multiple [default: SM]"),
    ] = None,
    start: Annotated[str | None, typer.Option(help="swap: whose mask is improved [default: wanda]")] = None,
    swaps: Annotated[int | None, typer.Option(min=0, help="swap: at most so many a row [default: 1000]")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="chita: thresholdings [default: 16]")] = None,
    block: Annotated[int | None, typer.Option(min=1, help="sparsegpt, mrp: columns at a time [default: 128]")] = None,
    rows: Annotated[int | None, typer.Option(min=0, help="block: rows of a tile, 0 for all [default: 1]")] = None,
    columns: Annotated[int | None, typer.Option(min=1, help="block: inputs of a tile [default: 4]")] = None,
    damp: Annotated[
        float | None, typer.Option(min=0, help="relative to the Gram's mean diagonal [default: 0.01]")
    ] = None,
    residual: options.Residual = 0,
    samples: options.Judged = 128,
    length: options.Length = 512,
    batch: options.Batch = 4,
    sequential: options.Sequential = "layer",
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    overwrite: options.Overwrite = False,
) -> None:
    with bars() as progress:
        api.sparsify(
            model, save, text=text, method=method, pattern=pattern, scope=scope, variant=variant, start=start,
            swaps=swaps, rounds=rounds, block=block, rows=rows, columns=columns, damp=damp, residual=residual,
            samples=samples, length=length, batch=batch, sequential=sequential,
            seed=seed, device=device, dtype=dtype, overwrite=overwrite,
            progress=progress, note=lambda text: err.print(text, soft_wrap=True),
        )  # fmt: skip
    from secateur.layerwise.write import read_audit

    print_audit(read_audit(save))
    out.print(f"wrote {save}", soft_wrap=True)


def print_audit(audit: Mapping[str, Any]) -> None:
    """Linears by the names they share: how many, and their layer errors, predicted and measured; then what was left."""
    from secateur.layerwise.write import folded

    rows = folded(audit)
    solved = [("linear", "", "error predicted", "measured", "")]
    solved += [(r.name, str(r.count), r.said(r.predicted), r.said(r.measured), r.why) for r in rows if r.solved]
    widths = [max(map(len, column)) for column in zip(*solved, strict=True)]
    for line in solved:  # whole names, however narrow the screen
        out.print("  ".join(map(str.ljust, line, widths)).rstrip(), soft_wrap=True, markup=False)
    for r in rows:
        if not r.solved:
            out.print(f"left {r.count} x {r.name}: {r.why}", soft_wrap=True, markup=False)
    out.print(", ".join(f"{n} tensors {action}" for action, n in audit["summary"].items()))
