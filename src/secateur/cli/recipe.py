"""``secateur run``: a recipe, the whole road as one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from secateur.cli.common import out

if TYPE_CHECKING:
    from secateur.recipe.execute import Decision

NAME = "run"
HELP = """Run a recipe: calibrate, plan, prune, repair, distill, eval and report as steps of one YAML file.

The recipe is checked as a whole before anything starts. Steps whose results are there are skipped; a changed setting
runs its step again and all that depend on it; what was interrupted is gone on with by the same command.

Examples:

    secateur run recipe.yaml --dry-run

    secateur run recipe.yaml"""


def run(
    recipe: Annotated[Path, typer.Argument(help="the recipe; paths in it are relative to its folder")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would run and why, and change nothing")] = False,
) -> None:
    from secateur.recipe.execute import decide, run_recipe
    from secateur.recipe.steps import load_recipe

    loaded = load_recipe(recipe)
    if dry_run:
        print_plan(decide(loaded))
        return
    done: list[Decision] = []
    try:
        for outcome in run_recipe(loaded, _announce):
            done.append(outcome)
    finally:
        print_outcomes(done)


def _announce(index: int, total: int, decision: Decision) -> None:
    step, verdict = decision.step, "runs" if decision.runs else "skipped"
    named = step.name if step.name == step.verb.name else f"{step.name} ({step.verb.name})"
    out.rule(Text(f"{index + 1}/{total}  {named}"))
    out.print(f"{verdict}: {decision.why}", soft_wrap=True, markup=False)


def print_plan(decisions: list[Decision]) -> None:
    """What would run, and why."""
    table = Table("step", "verb", "", "why", box=None, header_style="bold")
    for d in decisions:
        table.add_row(d.step.name, d.step.verb.name, "would run" if d.runs else "skipped", Text(d.why))
    out.print(table)


def print_outcomes(done: list[Decision]) -> None:
    """What each step did, how long it took (when it ran), and where its result lies."""
    table = Table("step", "state", "seconds", "result", box=None, header_style="bold")
    table.columns[2].justify = "right"
    for d in done:
        table.add_row(d.step.name, "ran" if d.runs else "skipped", f"{d.seconds:,.1f}", Text(str(d.step.result)))
    if done:
        out.rule()
        out.print(table)
