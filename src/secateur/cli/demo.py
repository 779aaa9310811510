"""``secateur demo``: the whole road on the embedded default."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from secateur.cli import recipe
from secateur.cli.common import err, out

NAME = "demo"
HELP = """Halve a small trained hybrid (Mamba-2, attention, MLP), repair it, distil it from its parent, and report.

Parent, texts and recipe come with the package. Everything is written to one folder, whose recipe.yaml runs again with
`secateur run`. Interrupted, the same command goes on; finished steps are skipped.

Examples:

    secateur demo

    secateur demo --quick --out demo"""


def run(
    save: Annotated[Path, typer.Option("--out", help="folder to work in; new, or of an earlier demo")] = Path(
        "secateur-demo"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="the same steps on very little text: no numbers to trust")
    ] = False,
) -> None:
    from secateur.demo.unpack import unpack

    begun = time.monotonic()
    told = "A small trained hybrid is measured, cut to half, repaired, healed, and compared with what it was."
    out.print(told, soft_wrap=True)
    told = f"It takes minutes; after Ctrl-C the same command goes on. Everything is written to {save}"
    out.print(told, soft_wrap=True, markup=False)
    path = unpack(save, "quick" if quick else "demo")
    _load_libraries()
    recipe.run(path)
    print_summary(save)
    out.print(f"in all {time.monotonic() - begun:,.0f} s", markup=False)


def _load_libraries() -> None:
    """The longest silence of the road, so it is said."""
    if not err.is_terminal:
        err.print("loading PyTorch and transformers")
    with err.status("loading PyTorch and transformers"):
        import torch  # noqa: F401
        import transformers.models.nemotron_h.modeling_nemotron_h  # noqa: F401


def print_summary(folder: Path) -> None:
    """The table and sentences of the folder's evaluation, and where the page lies."""
    from secateur.demo.summary import sentences, table
    from secateur.evaluation.results import load_results

    document = load_results(folder / "numbers.json")
    names, rows = table(document)
    out.rule("what was lost, what came back, how much smaller and faster")
    shown = Table("", *names, box=None, header_style="bold")
    for column in shown.columns[1:]:
        column.justify = "right"
    for row in rows:
        shown.add_row(row.label, *row.cells)
    out.print(shown)
    for sentence in sentences(document):
        out.print(sentence, soft_wrap=True, markup=False)
    out.print(f"The whole story, to open in a browser: {folder / 'report.html'}", soft_wrap=True, markup=False)
