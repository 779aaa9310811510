"""Options that several verbs have: one wording, one bound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Checkpoint = Annotated[str, typer.Argument(help="checkpoint folder or hub id")]
Result = Annotated[Path, typer.Option("--out", help="folder for the result; must not exist yet")]
Overwrite = Annotated[bool, typer.Option(help="replace a checkpoint that is there")]
Samples = Annotated[int, typer.Option(min=1, help="windows of text")]
Judged = Annotated[int, typer.Option(min=1, help="windows of text; the last batch judges")]
Length = Annotated[int, typer.Option(min=8, help="tokens per window")]
Batch = Annotated[int, typer.Option(min=1, help="windows at a time")]
Seed = Annotated[int, typer.Option(min=0, help="which windows are drawn")]
RandomSeed = Annotated[int, typer.Option(min=0, help="which windows are drawn, and every random step")]
Device = Annotated[str, typer.Option(help="where blocks compute")]
Dtype = Annotated[str, typer.Option(help="in what to compute: float32 or bfloat16")]
Sequential = Annotated[
    Literal["layer", "linear"],
    typer.Option(help="linear: each is solved behind compressed ones; half the forward passes, all text in memory"),
]
Residual = Annotated[
    int, typer.Option(min=0, help="rank of what makes up for it, stored as a LoRA adapter (EoRA); 0: none")
]
