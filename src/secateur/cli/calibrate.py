"""``secateur calibrate``: real text through the model, one block at a time, for what criteria need to know."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from secateur.cli.common import out, step_progress

NAME = "calibrate"
HELP = """Stream text through a model block by block and keep channel statistics. One block's weights are in memory.

Example:

    secateur calibrate ./checkpoint --text books/ --samples 128 --length 512 --out stats.safetensors

    torchrun --nproc-per-node 2 -m secateur calibrate ./checkpoint --text books/ --out stats.safetensors"""


def run(
    model: Annotated[str, typer.Argument(help="checkpoint folder or hub id")],
    text: Annotated[list[str], typer.Option(help="text files, folders, JSONL, parquet or hf://owner/name; repeatable")],
    save: Annotated[Path, typer.Option("--out", help="file for the statistics")],
    samples: Annotated[int, typer.Option(min=1, help="windows of text")] = 128,
    length: Annotated[int, typer.Option(min=8, help="tokens per window")] = 512,
    batch: Annotated[int, typer.Option(min=1, help="windows at a time")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="which windows are drawn")] = 0,
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
    revision: Annotated[str | None, typer.Option(help="hub revision")] = None,
) -> None:
    import torch

    from secateur.calibration.ranks import joined
    from secateur.calibration.stats import calibrate
    from secateur.data import check_vocabulary, load_tokenizer, pack, read_texts
    from secateur.importance import depth, experts, taylor
    from secateur.model import open_model
    from secateur.pruning.choose import can_keep

    with joined(device), open_model(model, revision=revision) as opened:
        tokenizer = load_tokenizer(opened.folder)
        check_vocabulary(tokenizer, opened.anatomy.sizes["v"])
        windows = pack(tokenizer, read_texts(text), length=length, samples=samples, seed=seed)
        about = {"text": list(text), "seed": seed}
        with step_progress("calibrating") as progress:
            stats = calibrate(
                opened,
                windows,
                batch=batch,
                about=about,
                dtype=getattr(torch, dtype),
                device=device,
                journal=journal,
                progress=progress,
            )
        on: dict[str, Any] = {"batch": batch, "dtype": getattr(torch, dtype), "device": device}
        if gradients:
            with step_progress("gradients") as progress:
                stats = stats.adding(taylor.measure(opened, windows, progress=progress, **on))
        if skip_layers != "no":
            on |= {"iterative": skip_layers == "iterative", "allowed": lambda kept: can_keep(opened, kept)}
            with step_progress("skipping layers") as progress:
                stats = stats.adding(depth.measure(opened, windows, progress=progress, **on))
        stats.save(save)
    out.print(f"wrote {save}: {len(stats.tensors)} statistics over {stats.tokens:,} tokens", soft_wrap=True)
    for layer, few in experts.starved(stats).items():
        out.print(f"[yellow]layer {layer}:[/] experts {few} got too few tokens to be scored fairly", soft_wrap=True)
