"""``secateur schedule``: where a model's prompts lose tokens with the least harm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from secateur import api
from secateur.cli import options
from secateur.cli.calibrate import bars
from secateur.cli.common import out

if TYPE_CHECKING:
    from secateur.tokens.calibrated import Calibrated

NAME = "schedule"
HELP = """Search the layers behind which MODEL's prompts lose tokens, for the least KL from the unreduced model.

With --save the result lies beside the checkpoint: `sc.reduce_tokens(model)` and `eval --reduce-tokens FOLDER` read it.

Example:

    secateur schedule ./checkpoint --text books/ --flops 0.8 --save"""


def run(
    model: options.Checkpoint,
    text: Annotated[list[str], typer.Option(help="text files, folders, JSONL, parquet or hf://owner/name; repeatable")],
    flops: Annotated[float, typer.Option(help="share of a prompt's operations that is left")] = 0.8,
    method: Annotated[
        Literal["utrc", "evit", "pumer", "importance", "random", "stride"], typer.Option(help="which tokens go")
    ] = "utrc",
    prompt: Annotated[int, typer.Option(min=32, help="tokens of a prompt")] = 512,
    after: Annotated[int, typer.Option(min=1, help="tokens behind it that are judged")] = 64,
    samples: options.Samples = 128,
    trials: Annotated[int, typer.Option(min=1, help="schedules that are tried")] = 30,
    batch: options.Batch = 4,
    seed: options.RandomSeed = 0,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    fast: Annotated[bool, typer.Option(help="run recurrent layers on the fast kernels")] = True,
    save: Annotated[bool, typer.Option("--save", help="write secateur_tokens.json beside the checkpoint")] = False,
) -> None:
    with bars() as progress:
        found = api.schedule(
            model, text, flops=flops, method=method, prompt=prompt, after=after, samples=samples, trials=trials,
            batch=batch, seed=seed, device=device, dtype=dtype, fast=fast, save=save, progress=progress,
        )  # fmt: skip
    print_found(found)
    if save:
        out.print(f"written beside {model}; measure it: secateur eval {model} --reduce-tokens {model}", soft_wrap=True)


def print_found(found: Calibrated) -> None:
    """The best schedules that were tried, then the one that was best on all text and the published one."""
    table = Table("behind layers", "strengths", "KL on the first windows", box=None, header_style="bold")
    for locations, strengths, kl in sorted(found.tried, key=lambda t: t[2])[:5]:
        table.add_row(", ".join(map(str, locations)), ", ".join(f"{s:g}" for s in strengths), f"{kl:.4f}")
    out.print(table)
    best = ", ".join(map(str, found.asked.locations))
    out.print(
        f"of {len(found.tried)} tried, on other windows: behind layers {best}, KL {found.kl:.4f} nats per token; "
        f"the published schedule {found.paper:.4f}",
        soft_wrap=True,
    )
