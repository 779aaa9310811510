"""``secateur demo``: the whole road on the embedded default."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.common import byte_progress, out
from secateur.cli.inspect import print_description
from secateur.cli.plan import print_plan
from secateur.cli.prune import print_result
from secateur.cli.verify import print_equality

NAME = "demo"
HELP = """Build a small hybrid, plan it to 60% of its parameters, cut it group-aware, and prove the cut exact."""


def run(
    save: Annotated[Path | None, typer.Option("--out", help="keep parent and child in this new folder")] = None,
    params: Annotated[str, typer.Option(help="parameters to stay within")] = "60%",
) -> None:
    from secateur.checkpoint import publish
    from secateur.demo.hybrid import build
    from secateur.describe import describe
    from secateur.evaluation.equality import verify
    from secateur.model import open_model
    from secateur.pruning.plan import make_plan
    from secateur.pruning.run import prune

    with tempfile.TemporaryDirectory(prefix="secateur-demo-") as scratch:
        folder = Path(scratch) / "demo"
        folder.mkdir()
        out.rule("1  a small hybrid: Mamba-2, attention, MLP")
        with open_model(build(folder / "parent")) as parent:
            print_description(describe(parent))
            out.rule(f"2  a shape within {params}")
            plan = make_plan(parent, params=params)
            print_plan(parent, plan)
            out.rule("3  the cut, heads kept per group")
            with byte_progress("writing") as progress:
                child = prune(parent, plan, folder / "child", progress=progress)
            print_result(folder / "child", child.anatomy.count(), child.weights.total_bytes)
            out.rule("4  the proof: child = masked parent, in plain transformers")
            result = verify(parent, child)
            print_equality(result)
        if save is not None:
            with publish(save) as staging:
                shutil.copytree(folder, staging, dirs_exist_ok=True)
            out.print(f"parent and child are in {save}", soft_wrap=True, markup=False)
    if not result.holds:
        raise typer.Exit(1)
