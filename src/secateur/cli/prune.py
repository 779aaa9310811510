"""``secateur prune``: cut a checkpoint to a smaller shape."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from secateur.cli import options
from secateur.cli.common import byte_progress, human_bytes, human_count, out, parse_size
from secateur.cli.fetch_ahead import fetch_ahead
from secateur.cli.plan import (
    Bytes,
    Drop,
    Keep,
    LayerScore,
    ModelArgument,
    Params,
    Revision,
    Statistics,
    from_options,
    print_plan,
    read_stats,
)
from secateur.errors import UsageError

NAME = "prune"
HELP = """Cut a checkpoint to a smaller shape: a standard checkpoint comes out, streamed, whole or not at all.

Examples:

    secateur prune ./checkpoint --keep hidden=3072,ffn=12288,ssm_heads=112 --out ./child

    secateur prune ./checkpoint --plan plan.json --score random --seed 1 --out ./child

    secateur prune ./checkpoint --params 60% --stats stats.safetensors --out ./child

    secateur prune ./checkpoint --keep ffn=8192 --mask --out ./masked-twin"""


def run(
    model: ModelArgument,
    save: options.Result,
    params: Params = None,
    bytes: Bytes = None,
    keep: Keep = None,
    drop_layers: Drop = None,
    plan: Annotated[Path | None, typer.Option(help="a plan written by `secateur plan --out`")] = None,
    stats: Statistics = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="which units stay: magnitude, random, first; with --stats also contribution, activation, flap, taylor",
            show_default="contribution with --stats, else magnitude",
        ),
    ] = None,
    layer_score: LayerScore = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of random choices")] = 0,
    norm: Annotated[
        Literal["auto", "eps-exact", "none"], typer.Option(help="how norm weights make up for the cut")
    ] = "auto",
    mask: Annotated[
        bool, typer.Option("--mask", help="write the parent's shape with the units zeroed, to compare")
    ] = False,
    shard_size: Annotated[str, typer.Option(help="largest size of a weight file")] = "5GB",
    text: Annotated[Path | None, typer.Option(help="text on which to count tokens when vocab shrinks")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing checkpoint at --out")] = False,
    revision: Revision = None,
) -> None:
    fetch_ahead(model)
    from secateur.importance import default_score
    from secateur.model import open_model
    from secateur.pruning.plan import load_plan
    from secateur.pruning.run import Settings, prune

    with open_model(model, revision=revision) as parent:
        measured = read_stats(stats, parent)
        if plan is not None:
            if params or bytes or keep or drop_layers:
                raise UsageError(
                    "--plan already holds the shape; leave out --params, --bytes, --keep and --drop-layers"
                )
            made = load_plan(plan, parent)
        else:
            made = from_options(parent, params, bytes, keep, drop_layers, measured, layer_score)
        print_plan(parent, made)
        score = score or default_score(measured is not None)
        settings = Settings(score, seed, norm, mask, parse_size(shard_size), overwrite, layer_score or "")
        with byte_progress("writing") as progress:
            child = prune(parent, made, save, settings, stats=measured, texts=_texts(text), progress=progress)
        print_result(save, child.anatomy.count(), child.weights.total_bytes)


def _texts(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").split("\n\n")
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"cannot read --text {path}: {e}") from e


def print_result(folder: Path, parameters: int, nbytes: int) -> None:
    import json

    entry = json.loads((folder / "secateur.json").read_text(encoding="utf-8"))
    audit = entry["audit"]
    out.print(
        f"wrote {folder}: {human_count(parameters)} parameters, {human_bytes(nbytes)}", soft_wrap=True, markup=False
    )
    out.print("tensors: " + ", ".join(f"{n} {action}" for action, n in audit["summary"].items()))
    out.print(f"norms: {entry['norms']['why']}", soft_wrap=True, markup=False)
    if "removed" in entry:
        gone, dead = entry["removed"]["units"], sum(entry["removed"]["dead"].values())
        out.print(f"removed: {', '.join(gone)}; {human_count(dead)} of their parameters are stored as constants,")
        out.print("which no field of this family's config can leave out")
    for name, what in audit["files"].items():
        if what.startswith("left"):
            out.print(f"[yellow]file {escape(name)}[/] {escape(what)}", soft_wrap=True)
    out.print(f"every tensor and file: {folder / 'secateur.json'}", soft_wrap=True, markup=False)
