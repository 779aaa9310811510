"""``secateur shed``: whole layers, blocks, scans or channels that a model can do without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from secateur import api
from secateur.cli import options
from secateur.cli.common import err, out
from secateur.cli.plan import Revision, print_plan

NAME = "shed"
HELP = """Find out which blocks a model can do without - layers, attention, MLPs, scans, channels; a plan comes out.

Pools are layer, the kinds that `secateur inspect` lists, scan (the SSM of a Mamba block alone) and channels. The whole
model is in memory; nothing is trained. What no config can leave out is written as constants, and counted.

Examples:

    secateur shed ./checkpoint --text books/ --stages "layer:6" --out plan.json

    secateur shed ./checkpoint --text books/ --stages "mamba & mlp:4 + scan:8 + channels:6" --out plan.json

    secateur shed ./checkpoint --text books/ --stages "layer:6" --method evopress --by kl --out plan.json"""


def run(
    model: options.Checkpoint,
    text: Annotated[list[str], typer.Option(help="text to measure on: files, folders, hf://owner/name; repeatable")],
    stages: Annotated[str, typer.Option(help="pool:how many; pools joined with &, stages with +")],
    save: Annotated[Path, typer.Option("--out", help="file for the plan")],
    method: Annotated[str, typer.Option(help="greedy, one-shot, evopress, bonsai, exhaustive")] = "greedy",
    by: Annotated[str, typer.Option(help="what is measured: nll, kl, mse (of logits)")] = "nll",
    group: Annotated[int | None, typer.Option(min=1, help="channels that go together [default: an eighth]")] = None,
    samples: options.Samples = 32,
    length: options.Length = 256,
    batch: options.Batch = 2,
    seed: options.RandomSeed = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="in what to compute")] = "float32",
    journal: Annotated[Path | None, typer.Option(help="file from which an interrupted search resumes")] = None,
    revision: Revision = None,
) -> None:
    with api.open(model, revision=revision) as opened, watching() as watch:
        plan, found = api.shed(
            opened, text, stages, method=method, by=by, out=save, journal=journal, watch=watch, group=group,
            samples=samples, length=length, batch=batch, seed=seed, device=device, dtype=dtype,
        )  # fmt: skip
        print_plan(opened, plan)
    out.print(f"removed: {', '.join(str(u) for u in sorted(found.removal))}", soft_wrap=True, markup=False)
    out.print(f"{found.measure} {found.cost:.4f} nats on this text, {found.trials:,} trials")
    out.print(f"plan written to {save}; apply it with: secateur prune {model} --plan {save} --out DIR", soft_wrap=True)


@contextmanager
def watching() -> Iterator[Callable[[str, int], None]]:
    """The last line of progress, live on a terminal; elsewhere a line each."""
    if not err.is_terminal:
        yield lambda line, trials: err.print(f"{line} ({trials:,} trials)", soft_wrap=True, markup=False)
        return
    with err.status("measuring") as status:
        yield lambda line, trials: status.update(f"{line} ({trials:,} trials)")
