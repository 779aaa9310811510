"""``secateur repair``: closed-form repair of a freshly cut child."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from secateur.cli.common import out, step_progress

if TYPE_CHECKING:
    from secateur.pruning.repair.layer import Repair

NAME = "repair"
HELP = """Repair a cut child in closed form: norm factors, and least squares for what writes the residual stream.

Each repair is fitted on the compressed stream and stays only if it lowers the layer's error on other text.

Example:

    secateur repair ./child --parent ./checkpoint --text books/ --out ./repaired"""


def run(
    child: Annotated[str, typer.Argument(help="what `secateur prune` wrote")],
    parent: Annotated[str, typer.Option(help="the checkpoint it was cut from")],
    text: Annotated[list[str], typer.Option(help="text files, folders, JSONL, parquet or hf://owner/name; repeatable")],
    save: Annotated[Path, typer.Option("--out", help="folder for the result; must not exist yet")],
    samples: Annotated[int, typer.Option(min=2, help="windows of text")] = 64,
    length: Annotated[int, typer.Option(min=8, help="tokens per window")] = 256,
    batch: Annotated[int, typer.Option(min=1, help="windows at a time")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="which windows are drawn")] = 0,
    damp: Annotated[
        float, typer.Option(min=0, help="pull towards the cut weights, relative to the Gram's scale")
    ] = 1e-2,
    feedback: Annotated[bool, typer.Option(help="let a layer make up for what earlier layers lost")] = True,
) -> None:
    from secateur.data import check_vocabulary, load_tokenizer, pack, read_texts
    from secateur.model import open_model
    from secateur.pruning.repair.run import RepairSettings, repair

    with open_model(parent) as a, open_model(child) as b:
        tokenizer = load_tokenizer(a.folder)
        check_vocabulary(tokenizer, a.anatomy.sizes["v"])
        windows = pack(tokenizer, read_texts(text), length=length, samples=samples, seed=seed)
        settings = RepairSettings(damp=damp, feedback=feedback, batch=batch)
        about = {"text": list(text), "seed": seed}
        with step_progress("repairing") as progress:
            _, log = repair(b, a, windows, save, settings, about=about, progress=progress)
    print_log(log)
    out.print(f"wrote {save}", soft_wrap=True)


def print_log(log: list[Repair]) -> None:
    """What each repair bought: relative error of the layer's output on text it was not fitted on."""
    table = Table("layer", "tensor", "repair", "error before", "after", "", box=None, header_style="bold")
    for r in log:
        verdict = "[green]kept[/]" if r.applied else "[dim]undone[/]"
        table.add_row(str(r.layer), r.tensor, r.method, f"{r.before:.3e}", f"{r.after:.3e}", verdict)
    out.print(table)
