"""``secateur export``: a checkpoint in another program's form, or in fewer bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from secateur import api
from secateur.cli import options
from secateur.cli.common import byte_progress, human_bytes, out

NAME = "export"
HELP = """Write a checkpoint for llama.cpp (gguf), or with bitmaps in place of zeros (sparse).

A sparse folder is no standard checkpoint; `secateur expand` makes it one again, to the last bit.

A packed checkpoint (`secateur quantize`) keeps its codes in a GGUF file: up to 4 bits as q4_0, up to 8 as q8_0.

Examples:

    secateur export ./checkpoint --to gguf --type q8_0 --out model.gguf

    secateur export ./sparse-checkpoint --to sparse --out ./small"""


def run(
    model: options.Checkpoint,
    to: Annotated[Literal["gguf", "sparse"], typer.Option(help="gguf: a file for llama.cpp; sparse: a folder")],
    save: Annotated[Path, typer.Option("--out", help="file (gguf) or folder (sparse) for the result")],
    type: Annotated[
        str | None, typer.Option(help="gguf: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 or q4_0 [default: f16]")
    ] = None,
    pre: Annotated[
        str | None, typer.Option(help="gguf: llama.cpp's name for the tokenizer's splitting, where it is not known")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="replace what is there")] = False,
) -> None:
    with byte_progress("writing") as progress:
        said = api.export(model, save, to=to, type=type, pre=pre, overwrite=overwrite, progress=progress)
    for line in said["notes"]:
        out.print(line, soft_wrap=True, markup=False)
    out.print(f"wrote {save}, {human_bytes(said['bytes'])}", soft_wrap=True, markup=False)
