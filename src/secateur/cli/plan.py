"""``secateur plan``: a shape within a budget, before any weight is touched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from secateur import api
from secateur.cli.common import human_bytes, human_count, out, parse_indices, parse_keep, print_json
from secateur.errors import UsageError

if TYPE_CHECKING:
    from secateur.calibration.stats import Stats
    from secateur.model import Model
    from secateur.pruning.plan import Plan

NAME = "plan"
HELP = """Choose a smaller shape and say exactly what it will cost. A config.json is enough.

Examples:

    secateur plan ./checkpoint --params 60%

    secateur plan ./config.json --bytes 8GB --keep ssm_state=128 --out plan.json

    secateur plan ./checkpoint --keep hidden=3072,ffn=12288,ssm_heads=112 --drop-layers 20-23

    secateur plan ./checkpoint --params 60% --stats stats.safetensors --keep layers=40 --layer-score depth-kl

    secateur plan ./config.json --params 50% --cost --tokens 2B"""

ModelArgument = Annotated[str, typer.Argument(help="checkpoint folder, config.json, or hub id")]
Params = Annotated[str | None, typer.Option(help="parameters to stay within: 60%, 4B, 350M")]
Bytes = Annotated[str | None, typer.Option(help="tensor bytes to stay within: 60%, 8GB, 8GiB")]
Keep = Annotated[str | None, typer.Option(help="sizes that are given: hidden=3072,ffn=12288,layers=20")]
Drop = Annotated[str | None, typer.Option("--drop-layers", help="layers to drop: 3,7-9")]
Statistics = Annotated[
    Path | None, typer.Option("--stats", help="statistics by `secateur calibrate`: sizes follow importance")
]
LayerScore = Annotated[
    str | None,
    typer.Option(help="which of layers=N stay: with --stats block-influence, depth-kl, depth-ppl, ...-iterative"),
]
Revision = Annotated[str | None, typer.Option(help="hub revision")]
CostOption = Annotated[
    bool, typer.Option("--cost", help="measure this machine and say what calibrating, cutting, healing would take")
]
Tokens = Annotated[str, typer.Option(help="with --cost: tokens to heal on, as 20M")]
Processes = Annotated[int, typer.Option(min=1, help="with --cost: processes that share the work")]
GpuRate = Annotated[
    float, typer.Option(min=1e-3, help="with --cost: 1e12 operations a second that one GPU really does")
]


def run(
    model: ModelArgument,
    params: Params = None,
    bytes: Bytes = None,
    keep: Keep = None,
    drop_layers: Drop = None,
    stats: Statistics = None,
    layer_score: LayerScore = None,
    save: Annotated[Path | None, typer.Option("--out", help="write the plan to this file")] = None,
    json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
    cost: CostOption = False,
    tokens: Tokens = "20M",
    processes: Processes = 1,
    gpu_rate: GpuRate = 160.0,
    revision: Revision = None,
) -> None:
    from secateur.model import open_model

    with open_model(model, revision=revision) as opened:
        measured = read_stats(stats, opened)
        made = from_options(opened, params, bytes, keep, drop_layers, measured, layer_score)
        if save is not None:
            made.save(save)
        took = api.cost(opened, made, tokens=tokens, processes=processes, gpu_rate=gpu_rate) if cost else None
        if json:
            print_json({**made.to_json(), **({} if took is None else {"cost": took})})
            return
        print_plan(opened, made)
        if took is not None:
            print_cost(took)
        if save is not None:
            out.print(
                f"plan written to {save}; apply it with: secateur prune {model} --plan {save} --out DIR",
                soft_wrap=True,
                markup=False,
            )


def read_stats(path: Path | None, model: Model) -> Stats | None:
    """The statistics that ``--stats`` names."""
    if path is None:
        return None
    from secateur.calibration.stats import load_stats

    return load_stats(path, model)


def from_options(
    model: Model,
    params: str | None,
    bytes_: str | None,
    keep: str | None,
    drop: str | None,
    stats: Stats | None = None,
    layer_score: str | None = None,
) -> Plan:
    """The plan that the shared options describe."""
    from secateur.pruning.plan import make_plan

    wanted = parse_keep(keep)
    count = wanted.pop("layers", None)
    if not (params or bytes_ or wanted or count or drop):
        raise UsageError(
            "nothing is asked for",
            hint="give --params, --bytes, --keep or --drop-layers; `secateur plan --help` shows how",
        )
    layers: list[int] | int | None = count
    if drop:
        if count is not None:
            raise UsageError("--keep layers=N and --drop-layers exclude each other")
        gone = parse_indices(drop, "--drop-layers")
        beyond = [i for i in gone if i >= model.anatomy.n_layers]
        if beyond:
            last = model.anatomy.n_layers - 1
            raise UsageError(f"--drop-layers {drop[:80]}: no layer {beyond[0]}; the layers are 0 to {last}")
        layers = [i for i in range(model.anatomy.n_layers) if i not in gone]
        if not layers:
            raise UsageError("--drop-layers names every layer; keep at least one")
    return make_plan(
        model,
        params=params,
        bytes_=bytes_,
        keep=wanted,
        layers=layers,
        stats=stats,
        layer_score=layer_score or "block-influence",
    )


def print_plan(model: Model, plan: Plan) -> None:
    """The shape and its price, before and after."""
    table = Table("", "parent", "child", "ratio", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    now = model.anatomy.public_sizes(model.anatomy.sizes)
    for name, size in plan.keep.items():
        table.add_row(name, str(now[name]), str(size), f"{size / now[name]:.1%}")
    kept = plan.layers if isinstance(plan.layers, int) else len(plan.layers)
    if kept != model.anatomy.n_layers:
        table.add_row("layers", str(model.anatomy.n_layers), str(kept), f"{kept / model.anatomy.n_layers:.1%}")
    table.add_section()
    for label, show, a, b in (
        ("parameters", human_count, plan.before.parameters, plan.after.parameters),
        ("bytes", human_bytes, plan.before.bytes, plan.after.bytes),
        ("KV cache per token", human_bytes, plan.before.kv_per_token, plan.after.kv_per_token),
        ("SSM state", human_bytes, plan.before.ssm_state, plan.after.ssm_state),
    ):
        table.add_row(label, show(a), show(b), f"{b / a:.1%}" if a else "-")
    out.print(table)
    if plan.importance is not None:
        _print_curves(plan.importance)
    for note in plan.notes:
        out.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)


def print_cost(found: Mapping[str, Any]) -> None:
    """What each step would take, on this machine and in hours of a GPU."""
    table = Table("", "hours here", "GPU-hours", "memory", "disk", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for verb, p in found["steps"].items():
        hours = f"{p['seconds'] / 3600:,.2f}", f"{p['gpu_seconds'] / 3600:,.3g}" if p["gpu_seconds"] else "-"
        table.add_row(verb, *hours, human_bytes(p["memory"]), human_bytes(p["disk"]) if p["disk"] else "-")
    out.print(table)
    text, machine = found["load"], found["machine"]
    out.print(
        f"calibrating and measuring on {text['samples']} x {text['length']} tokens, healing on "
        f"{human_count(text['train_tokens'])} of them; this machine: {machine['flops'] / 1e9:,.0f} GFLOP/s, "
        f"{human_bytes(machine['read'])}/s read, {human_bytes(machine['write'])}/s written, "
        f"{human_bytes(machine['hash'])}/s hashed; GPU at {found['gpu_flops'] / 1e12:,.0f} TFLOP/s; memory per process",
        soft_wrap=True,
    )
    if not found["fitted"]:
        out.print("[yellow]note:[/] counted from rates alone, not fitted to measured runs: hours are bounds from below")


def _print_curves(importance: Mapping[str, Any]) -> None:
    """What the sizes were read from: the share of an axis' importance that a size keeps."""
    shares = {"7/8": 0.875, "3/4": 0.75, "1/2": 0.5, "1/4": 0.25}
    table = Table("importance kept", "as chosen", *(f"at {name}" for name in shares), box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for curve in importance["cumulative"]:
        sizes, kept = curve["sizes"], curve["kept"]
        below = [[k for s, k in zip(sizes, kept, strict=True) if s <= share * sizes[-1]] for share in shares.values()]
        chosen = f"{curve['chosen']}: {kept[sizes.index(curve['chosen'])]:.1%}"
        table.add_row(curve["axis"], chosen, *(f"{k[-1]:.1%}" if k else "-" for k in below))
    out.print(table)
