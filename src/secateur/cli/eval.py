"""``secateur eval``: loss, agreement with the parent, size, speed and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from secateur import api
from secateur.cli.common import err, human_bytes, human_count, out, print_json
from secateur.tokens.settings import TokenReduction

NAME = "eval"
HELP = """Measure loss, perplexity and bits per byte on text; with a parent also KL, JS and top-1 agreement.

Parameters, bytes and cache are counted; --speed measures prefill, decode and peak memory in turns with the parent.

Examples:

    secateur eval ./child --parent ./checkpoint --text heldout.txt

    secateur eval ./child --parent ./checkpoint --text heldout.txt --limit 200kB --speed --out results.json

    secateur eval ./checkpoint --text news.txt --text code.jsonl --window 2048 --stride 512 --json

    secateur eval ./child --parent ./checkpoint --text heldout.txt --reduce-tokens 0.8 --speed --fast"""

Limit = Annotated[str | None, typer.Option(help="read at most so much of each text: 200kB, 5MB")]
Window = Annotated[int, typer.Option(min=0, help="tokens a window holds; 0: 1024, or what every model can read")]
Stride = Annotated[int, typer.Option(min=0, help="new tokens a window scores; 0: all of them (segments, no overlap)")]
Batch = Annotated[int, typer.Option(min=1, help="windows at a time")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
DtypeOption = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="precision to run in; auto: float32 on a CPU, else bfloat16"),
]
Fast = Annotated[bool, typer.Option("--fast", help="run recurrent layers on the fast kernels")]
Speed = Annotated[bool, typer.Option("--speed", help="measure speed and peak memory, in turns with the parent")]
Rounds = Annotated[int, typer.Option(min=1, help="rounds of --speed")]
ReduceTokens = Annotated[
    str | None,
    typer.Option(
        help="measure every model with reduced prompts as well: at this share of their operations (0.8), or as "
        "`secateur schedule --save` left it in this folder"
    ),
]
Stream = Annotated[
    bool | None,
    typer.Option("--stream/--no-stream", help="one block in memory at a time", show_default="when memory is too small"),
]
Journal = Annotated[Path | None, typer.Option(help="folder from which an interrupted --stream resumes")]
Spill = Annotated[Path | None, typer.Option(help="folder for the hidden states of --stream, to keep them off memory")]
Samples = Annotated[int, typer.Option(min=0, help="texts to write, greedily, from the same prompts")]


def run(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="checkpoint folders or hub ids")],
    text: Annotated[list[str], typer.Option(help="held-out text: .txt, .jsonl, .parquet, a folder, hf://owner/name")],
    parent: Annotated[str | None, typer.Option(help="the model they were cut from")] = None,
    limit: Limit = None,
    window: Window = 0,
    stride: Stride = 0,
    batch: Batch = 8,
    device: Device = "auto",
    dtype: DtypeOption = "auto",
    fast: Fast = False,
    speed: Speed = False,
    rounds: Rounds = 5,
    samples: Samples = 0,
    reduce_tokens: ReduceTokens = None,
    stream: Stream = None,
    journal: Journal = None,
    spill: Spill = None,
    json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
    save: Annotated[Path | None, typer.Option("--out", help="write the JSON document to this file")] = None,
) -> None:
    with progress() as told:
        found = api.evaluate(
            models, text, parent=parent, limit=limit, window=window, stride=stride, batch=batch, samples=samples,
            device=device, dtype=dtype, fast=fast, speed=speed, rounds=rounds, reduce_tokens=_reduction(reduce_tokens),
            stream=stream, journal=journal, spill=spill, out=save, progress=told,
        )  # fmt: skip
    if json:
        print_json(found)
        return
    print_results(found)
    if save is not None:
        out.print(
            f"results written to {save}; a page of them: secateur report {save} --out report.html", soft_wrap=True
        )


def _reduction(said: str | None) -> TokenReduction | float | None:
    """A share, or what lies in a folder."""
    if said is None:
        return None
    try:
        return float(said)
    except ValueError:
        return TokenReduction.load(said)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """One bar for each thing measured; a line when one begins where stderr is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def told(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=total)
                if not err.is_terminal:
                    err.print(f"measuring {label}", markup=False)
            bar.update(tasks[label], completed=done, total=total)

        yield told


def print_results(found: dict[str, Any]) -> None:
    """One row per quantity, one column per model."""
    models = found["models"]
    table = Table(box=None, header_style="bold")
    table.add_column("", no_wrap=True)
    for m in models:
        table.add_column(_plain(m["name"]), justify="right", overflow="fold")
    for label, show in _ROWS:
        cells = [show(m) for m in models]
        if any(cells):
            table.add_row(label, *(c or "-" for c in cells))
    out.print(table)
    settings = found["settings"]
    how = "segments" if settings["stride"] == settings["window"] else f"sliding by {settings['stride']}"
    names = ", ".join(f"{t['name']} ({human_bytes(t['bytes'])})" for t in found["text"])
    out.print(f"on {names}; windows of {settings['window']} tokens, {how}", soft_wrap=True, markup=False)
    for m in models:
        if m["why_no_agreement"]:
            out.print(f"no agreement for {m['name']}: {m['why_no_agreement']}", soft_wrap=True, markup=False)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _of(m: dict[str, Any], part: str, key: str, show: Callable[[Any], str]) -> str:
    value = (m[part] or {}).get(key)
    return "" if value is None else show(value)


def _median(value: dict[str, float]) -> str:
    return f"{value['median']:,.4g}"


def _ratio(value: dict[str, float]) -> str:
    return f"{value['median']:.2f}x"


def _range(value: dict[str, float]) -> str:
    return f"{value['min']:.2f}-{value['max']:.2f}"


#: Label -> what to show of a model; rows that no model fills are left out.
_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("parameters", lambda m: human_count(m["size"]["parameters"])),
    ("   without embedding", lambda m: human_count(m["size"]["non_embedding"])),
    ("bytes on disk", lambda m: human_bytes(m["size"]["disk_bytes"])),
    ("cache", lambda m: f"{human_bytes(m['size']['cache_bytes'])} at {m['size']['context']}"),
    ("loss (nats per token)", lambda m: _number(m["text"]["total"]["loss"])),
    ("perplexity", lambda m: _number(m["text"]["total"]["perplexity"], 2)),
    ("bits per byte", lambda m: _number(m["text"]["total"]["bits_per_byte"])),
    ("KL(parent||child), nats", lambda m: _of(m, "agreement", "kl", _number)),
    ("JS, nats", lambda m: _of(m, "agreement", "js", _number)),
    ("top-1 agreement", lambda m: _of(m, "agreement", "top1", "{:.2%}".format)),
    ("parent's mass on lost tokens", lambda m: _of(m, "agreement", "outside_mass", lambda v: f"{v:.2%}" if v else "")),
    ("prefill tokens/s", lambda m: _of(m, "speed", "prefill_tokens_per_s", _median)),
    ("   times the first", lambda m: _of(m, "speed", "prefill_ratio", _ratio)),
    ("   range", lambda m: _of(m, "speed", "prefill_ratio", _range)),
    ("decode tokens/s", lambda m: _of(m, "speed", "decode_tokens_per_s", _median)),
    ("   times the first", lambda m: _of(m, "speed", "decode_ratio", _ratio)),
    ("   range", lambda m: _of(m, "speed", "decode_ratio", _range)),
    ("peak memory", lambda m: _of(m, "speed", "peak_bytes", lambda v: human_bytes(v["median"]))),
    ("   times the first", lambda m: _of(m, "speed", "peak_ratio", _ratio)),
    ("   range", lambda m: _of(m, "speed", "peak_ratio", _range)),
)
