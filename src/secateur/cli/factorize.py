"""``secateur factorize``: thin factors in place of linears, without training."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from secateur import api
from secateur.cli import options
from secateur.cli.calibrate import bars
from secateur.cli.common import human_bytes, out

NAME = "factorize"
HELP = """Replace every linear by two thin matrices of least layer error: svd, asvd, svd-llm, lord, curing, modegpt.

A factorised linear is no standard one. `--store dense` multiplies the factors out: loads everywhere, saves no bytes.
`--store factors` keeps them: fewer bytes, restored to the last bit by `secateur expand`.

Example:

    secateur factorize ./checkpoint --method svd-llm --ratio 0.8 --text books/ --out ./low-rank"""


def run(
    model: options.Checkpoint,
    save: options.Result,
    text: Annotated[
        list[str] | None,
        typer.Option(help="text files, folders, JSONL, parquet or hf://owner/name; repeatable; svd needs none"),
    ] = None,
    method: Annotated[str, typer.Option(help="svd, asvd, svd-llm, lord, curing or modegpt")] = "svd-llm",
    ratio: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="part of each linear's parameters to keep [default: 0.8]")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="the same rank for all instead")] = None,
    allocate: Annotated[
        str, typer.Option(help="uniform, or share ranks out by spectra: greedy, dynamic, integer, ..")
    ] = "uniform",
    store: Annotated[Literal["dense", "factors"], typer.Option(help="multiplied out, or in parts")] = "dense",
    alpha: Annotated[float | None, typer.Option(min=0.0, help="asvd: power of a channel's size [default: 1]")] = None,
    on_outputs: Annotated[
        bool | None, typer.Option("--on-outputs", help="curing: the core that is best for the outputs")
    ] = None,
    samples: options.Judged = 128,
    length: options.Length = 512,
    batch: options.Batch = 4,
    sequential: options.Sequential = "layer",
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    overwrite: options.Overwrite = False,
) -> None:
    with bars() as progress:
        api.factorize(
            model, save, text=text, method=method, ratio=ratio, rank=rank, allocate=allocate, store=store, alpha=alpha,
            on_outputs=on_outputs, samples=samples, length=length, batch=batch, sequential=sequential,
            seed=seed, device=device, dtype=dtype,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
    from secateur.cli.sparsify import print_audit
    from secateur.layerwise.write import read_audit

    audit = read_audit(save)
    if method != "modegpt":
        print_audit(audit)
    size = sum(p.stat().st_size for p in save.rglob("*.safetensors"))
    out.print(f"wrote {save}, {human_bytes(size)} of weights", soft_wrap=True)
