"""``secateur calibrate``: real text through the model, one block at a time, for what criteria need to know."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from secateur.cli.common import out, step_progress

NAME = "calibrate"
HELP = """Stream text through a model block by block and keep channel statistics. One block's weights are in memory.

Example:

    secateur calibrate ./checkpoint --text books/ --samples 128 --length 512 --out stats.safetensors"""


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
    journal: Annotated[Path | None, typer.Option(help="folder from which an interrupted run resumes")] = None,
    revision: Annotated[str | None, typer.Option(help="hub revision")] = None,
) -> None:
    import torch

    from secateur.calibrate.stats import calibrate
    from secateur.data import check_vocabulary, load_tokenizer, pack, read_texts
    from secateur.model import open_model

    with open_model(model, revision=revision) as opened:
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
    stats.save(save)
    out.print(f"wrote {save}: {len(stats.tensors)} statistics over {stats.tokens:,} tokens", soft_wrap=True)
