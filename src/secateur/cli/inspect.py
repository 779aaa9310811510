"""``secateur inspect``: what a checkpoint is made of."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from secateur.cli.common import human_bytes, human_count, out, print_json

NAME = "inspect"
HELP = """Show family, layers, axes, sizes, caches, and what can be pruned.

Examples:

    secateur inspect nvidia/Nemotron-H-8B-Base-8K

    secateur inspect ./checkpoint --json

    secateur inspect ./config.json"""


def run(
    model: Annotated[str, typer.Argument(help="checkpoint folder, config.json, or hub id")],
    json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
    revision: Annotated[str | None, typer.Option(help="hub revision")] = None,
) -> None:
    from secateur.describe import describe
    from secateur.model import open_model

    with open_model(model, revision=revision) as opened:
        found = describe(opened)
    if json:
        print_json(found)
        return
    print_description(found)


def print_description(d: dict[str, Any]) -> None:
    weights = "" if d["weights"] else "  (config only: no weights here)"
    out.print(f"[bold]{escape(d['source'])}[/]  {d['model_type']} ({d['architecture']}){weights}", soft_wrap=True)
    kinds = ", ".join(f"{n} {kind}" for kind, n in d["layers"]["kinds"].items())
    out.print(
        f"{human_count(d['parameters'])} parameters, {human_bytes(d['bytes'])}; {d['layers']['count']} layers: {kinds}"
    )
    axes = Table("axis", "size", "parameters", "bytes", "can be pruned to", box=None, header_style="bold")
    for name in ("size", "parameters", "bytes"):
        axes.columns[("axis", "size", "parameters", "bytes").index(name)].justify = "right"
    for a in d["axes"]:
        axes.add_row(a["name"], str(a["size"]), human_count(a["parameters"]), human_bytes(a["bytes"]), _sizes(a))
    out.print(axes)
    parts = Table("part", "parameters", "bytes", "share", box=None, header_style="bold")
    for column in parts.columns[1:]:
        column.justify = "right"
    for name, p in d["parts"].items():
        share = f"{p['parameters'] / d['parameters']:.1%}"
        parts.add_row(name, human_count(p["parameters"]), human_bytes(p["bytes"]), share)
    out.print(parts)
    cache = d["cache"]
    out.print(
        f"cache per sequence: {human_bytes(cache['kv_bytes_per_token'])} per token (KV), "
        f"{human_bytes(cache['ssm_state_bytes'])} SSM state, {human_bytes(cache['conv_state_bytes'])} convolution state"
    )
    for kind, window in cache["windows"].items():
        out.print(f"  {kind} keeps at most {window} tokens")
    for name, why in d["left_behind"].items():
        out.print(f"[yellow]left behind when cut:[/] {escape(name)}: {escape(why)}", soft_wrap=True)


def _sizes(axis: dict[str, Any]) -> str:
    sizes = axis["sizes"]
    if not sizes:
        return f"[dim]-  {escape(axis['why_not'])}[/]"
    step = sizes[1] - sizes[0] if len(sizes) > 1 else sizes[0]
    if sizes == list(range(sizes[0], axis["size"], step)):
        return "any size" if step == 1 and sizes[0] <= 1 else f"multiples of {step}" if sizes[0] == step else str(sizes)
    shown = ", ".join(map(str, sizes[-6:]))
    return ("..., " if len(sizes) > 6 else "") + shown
