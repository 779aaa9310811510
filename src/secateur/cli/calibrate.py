"""``secateur calibrate``: real text through the model, one block at a time, for what criteria need to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from secateur import api
from secateur.cli import options
from secateur.cli.common import out, step_progress

NAME = "calibrate"
HELP = """Stream text through a model block by block and keep channel statistics. One block's weights are in memory.

Example:

    secateur calibrate ./checkpoint --text books/ --samples 128 --length 512 --out stats.safetensors

    torchrun --nproc-per-node 2 -m secateur calibrate ./checkpoint --text books/ --out stats.safetensors"""

_SKIPPED = {"no": (), "one-shot": ("depth",), "iterative": ("depth-iterative",)}


def run(
    model: options.Checkpoint,
    text: Annotated[list[str], typer.Option(help="text files, folders, JSONL, parquet or hf://owner/name; repeatable")],
    save: Annotated[Path, typer.Option("--out", help="file for the statistics")],
    samples: options.Samples = 128,
    length: options.Length = 512,
    batch: options.Batch = 4,
    seed: options.Seed = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="in what to compute")] = "float32",
    gradients: Annotated[
        bool, typer.Option("--gradients", help="also for --score taylor; the whole model and its gradients in memory")
    ] = False,
    skip_layers: Annotated[
        Literal["no", "one-shot", "iterative"],
        typer.Option(help="also measure the model without each layer (--layer-score depth-kl); whole model in memory"),
    ] = "no",
    journal: Annotated[Path | None, typer.Option(help="folder from which an interrupted run resumes")] = None,
    spill: Annotated[Path | None, typer.Option(help="folder for hidden states, to keep them off memory")] = None,
    revision: Annotated[str | None, typer.Option(help="hub revision")] = None,
) -> None:
    from secateur.importance import experts

    observe = ("activation", *(("taylor",) if gradients else ()), *_SKIPPED[skip_layers])
    with api.open(model, revision=revision) as opened, bars() as progress:
        stats = api.calibrate(
            opened, text, observe=observe, samples=samples, length=length, batch=batch, seed=seed, device=device,
            dtype=dtype, journal=journal, spill=spill, out=save, progress=progress,
        )  # fmt: skip
    out.print(f"wrote {save}: {len(stats.tensors)} statistics over {stats.tokens:,} tokens", soft_wrap=True)
    for layer, few in experts.starved(stats).items():
        out.print(f"[yellow]layer {layer}:[/] experts {few} got too few tokens to be scored fairly", soft_wrap=True)


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """One bar after another, a new one for each new label."""
    with ExitStack() as stack:
        shown: list[tuple[str, Callable[[int, int], None]]] = []

        def told(label: str, done: int, total: int) -> None:
            if not shown or shown[-1][0] != label:
                stack.close()
                shown.append((label, stack.enter_context(step_progress(label))))
            shown[-1][1](done, total)

        yield told
