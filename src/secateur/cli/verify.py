"""``secateur verify``: is the child exactly the parent with those units masked?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from secateur import api
from secateur.cli.common import out, print_json

if TYPE_CHECKING:
    from secateur.evaluation.equality import Equality

NAME = "verify"
HELP = """Compare a child with its masked parent through plain transformers. Holds both in memory.

Example:

    secateur verify ./checkpoint ./child"""

INEXACT = (
    "Two causes are no damage: norm weights rescaled by a hidden cut are rounded to the dtype of the files (cut a "
    "float32 copy of the parent to rule that out), and a LayerNorm subtracts a mean that changes with the width (then "
    "secateur.json says under norms that the cut is not exact, and why)."
)


def run(
    parent: Annotated[str, typer.Argument(help="the checkpoint that was cut")],
    child: Annotated[Path, typer.Argument(help="what `secateur prune` wrote")],
    tokens: Annotated[int, typer.Option(min=8, max=4096, help="random tokens to compare on")] = 48,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    from dataclasses import asdict

    result = api.verify(parent, child, tokens=tokens, seed=seed)
    if json:
        print_json({**asdict(result), "holds": result.holds})
    else:
        print_equality(result)
    if not result.holds:
        raise typer.Exit(1)


def print_equality(result: Equality) -> None:
    """The comparison as a table with a verdict."""
    table = Table("check", "value", "", box=None, header_style="bold")
    table.columns[1].justify = "right"
    ok = "[green]ok[/]"
    bad = "[red]fails[/]"
    table.add_row("strict load in plain transformers", "", ok)
    table.add_row("parameters = formula", f"{result.parameters:,}", ok if result.parameters == result.formula else bad)
    table.add_row(
        "child = masked parent (eps to 0)",
        f"{result.eps_to_zero:.1e}",
        ok if result.eps_to_zero <= result.tolerance else bad,
    )
    table.add_row("   the same at the config's eps", f"{result.at_eps:.1e}", "")
    table.add_row("cached decoding = full forward", f"{result.cached:.1e}", ok if result.cache_agrees else bad)
    table.add_row("   the same of the parent", f"{result.cached_parent:.1e}", "")
    table.add_row("child against the uncut parent", f"{result.uncut:.1e}", "")
    out.print(table)
    out.print(f"[dim]max difference / spread of the logits; accepted up to {result.tolerance:.0e} for this dtype[/]")
    if result.eps_to_zero > result.tolerance:
        out.print(INEXACT, soft_wrap=True, markup=False)
