"""``secateur quantize``: fewer bits per weight, without training."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from secateur import api
from secateur.cli import options
from secateur.cli.calibrate import bars
from secateur.cli.common import human_bytes, out

NAME = "quantize"
HELP = """Round every linear to few bits, without training: rtn, gptq, obq, decoupleq, higgs, nupes, bct, onebit.

`--store packed` writes a compressed-tensors checkpoint: fewer bytes, loaded by plain transformers and vLLM. What no
loader takes packed is stored dequantised, and the record says which linears and why. `--store dense` stores all so.

Examples:

    secateur quantize ./checkpoint --method gptq --bits 4 --group 128 --text books/ --out ./int4

    secateur quantize ./checkpoint --method decoupleq --bits 3.5 --allocate dynamic --text books/ --out ./mixed"""


def run(
    model: options.Checkpoint,
    save: options.Result,
    text: Annotated[
        list[str] | None,
        typer.Option(help="text files, folders, JSONL, parquet or hf://owner/name; repeatable; some methods need none"),
    ] = None,
    method: Annotated[str, typer.Option(help="rtn, gptq, obq, decoupleq, higgs, nupes, bct or onebit")] = "gptq",
    bits: Annotated[float | None, typer.Option(help="bits of a weight; a mean with --allocate [default: 4]")] = None,
    group: Annotated[
        int | None, typer.Option(min=0, help="columns that share a scale, 0 for whole rows [default: 128]")
    ] = None,
    asymmetric: Annotated[bool, typer.Option("--asymmetric", help="grids with a zero of their own")] = False,
    search: Annotated[
        Literal["minmax", "mse", "gram"] | None, typer.Option(help="how ranges of grids are found [default: mse]")
    ] = None,
    order: Annotated[
        Literal["activation", "none"] | None, typer.Option(help="gptq: order of columns [default: activation]")
    ] = None,
    damp: Annotated[
        float | None, typer.Option(min=0.0, help="ridge, relative to the Gram's scale [default: 0.01]")
    ] = None,
    allocate: Annotated[
        str, typer.Option(help="uniform, or share bits out by errors: greedy, dynamic, integer, ..")
    ] = "uniform",
    store: Annotated[Literal["packed", "dense"], typer.Option(help="packed integers, or dequantised")] = "packed",
    residual: options.Residual = 0,
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
        api.quantize(
            model, save, text=text, method=method, bits=bits, group=group, symmetric=False if asymmetric else None,
            search=search, order=order, damp=damp, allocate=allocate, store=store, residual=residual,
            samples=samples, length=length, batch=batch, sequential=sequential,
            seed=seed, device=device, dtype=dtype, overwrite=overwrite,
            progress=progress,
        )  # fmt: skip
    print_stored(json.loads((save / "secateur.json").read_text(encoding="utf-8")))
    size = sum(p.stat().st_size for p in save.glob("*.safetensors"))
    out.print(f"wrote {save}, {human_bytes(size)} of weights", soft_wrap=True)


def print_stored(record: dict[str, Any]) -> None:
    """How many linears are packed, and for what reasons others are not."""
    stored = record.get("storage")
    if stored is None:
        return
    out.print(f"packed: {len(stored['packed'])} linears")
    for what, found in (("stored dense", stored["dense"]), ("vLLM on a CPU has no kernel for", stored["refused"])):
        reasons: dict[str, list[str]] = {}
        for name, why in found.items():
            reasons.setdefault(why, []).append(name)
        for why, names in reasons.items():
            out.print(f"{what}: {len(names)} linears ({names[0]}, ..): {why}", soft_wrap=True, markup=False)
