"""``secateur search``: the best shape within a budget, found by measuring candidates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from secateur import api
from secateur.cli import options
from secateur.cli.calibrate import bars
from secateur.cli.common import err, human_count, out
from secateur.cli.plan import Bytes, Params, Revision, Statistics
from secateur.errors import UsageError

if TYPE_CHECKING:
    from secateur.search.arena import Arena
    from secateur.search.run import Found

NAME = "search"
HELP = """Find the best shape within a budget of parameters, bytes, cache or measured latency; a plan comes out.

Candidates are ranked in stages, each dearer than the one before; how well stages agree is reported. Every measurement
goes to a journal in --work: the same command resumes, and another strategy uses what was measured. Under a seed the
steps of a search are always the same; --budget says after how much of them it ends. What is being measured when the
time is over is finished first. All layers get the same widths, for that is what configs can say.

Examples:

    secateur search ./checkpoint --params 60% --text books/ --budget 30min --out plan.json

    secateur search ./checkpoint --latency 0.6x --context 8192 --text books/ --axes hidden,ffn,ssm_heads --out plan.json

    torchrun --nproc-per-node 4 -m secateur search ./checkpoint --params 4B --text c4.jsonl --out plan.json"""

Amount = str | None
_REFRESH = 0.5  # seconds


def run(
    model: options.Checkpoint,
    text: Annotated[list[str], typer.Option(help="text to measure and distil on: files, folders, hf://owner/name")],
    save: Annotated[Path, typer.Option("--out", help="file for the plan; the record of the search goes beside it")],
    params: Params = None,
    bytes: Bytes = None,
    cache: Annotated[Amount, typer.Option(help="bytes of keys and states at --context: 50%, 1GiB")] = None,
    latency: Annotated[Amount, typer.Option(help="a prompt and 64 new tokens on this machine: 0.6x, 900ms")] = None,
    prefill: Annotated[Amount, typer.Option(help="the prompt alone: 0.6x, 500ms")] = None,
    decode: Annotated[Amount, typer.Option(help="one new token: 0.6x, 12ms")] = None,
    context: Annotated[int, typer.Option(min=1, help="tokens of a sequence for cache and latency")] = 4096,
    sequences: Annotated[int, typer.Option(min=1, help="sequences at once for cache and latency")] = 1,
    budget: Annotated[
        str | None, typer.Option(help="time to spend: 30min, 2h [default: what the effort takes]")
    ] = None,
    strategy: Annotated[str, typer.Option(help="how candidates are found; a wrong name lists all")] = "evolutionary",
    axes: Annotated[str | None, typer.Option(help="axes that may change [default: all that the config says]")] = None,
    keep_depth: Annotated[bool, typer.Option("--keep-depth", help="all layers stay")] = False,
    stats: Statistics = None,
    score: Annotated[str, typer.Option(help="which units stay [default: as prune does]")] = "",
    samples: Annotated[int, typer.Option(min=1, help="windows to measure on")] = 64,
    lessons: Annotated[int, typer.Option(min=0, help="windows to distil on")] = 64,
    length: Annotated[int, typer.Option(min=8, help="tokens of a window")] = 256,
    batch: options.Batch = 4,
    initial: Annotated[int, typer.Option(min=1, help="random candidates to begin with")] = 16,
    generations: Annotated[
        int | None, typer.Option(min=0, help="generations [default: 20, with --budget as many as there is time]")
    ] = None,
    offspring: Annotated[int, typer.Option(min=1, help="candidates of a generation")] = 16,
    tokens: Annotated[str, typer.Option(help="text read by each zero-shot stage, in tokens")] = "2k,8k",
    finalists: Annotated[int, typer.Option(min=1, help="candidates that are distilled at the end")] = 4,
    heal: Annotated[str, typer.Option(help="tokens each of them is distilled on; 0 for none")] = "16k",
    repair: Annotated[bool, typer.Option("--repair", help="least squares before the last measurements")] = False,
    seed: options.RandomSeed = 0,
    work: Annotated[Path | None, typer.Option(help="journal, statistics, latencies [default: OUT.work]")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="throw away what the work folder holds")] = False,
    table: Annotated[Path | None, typer.Option(help="latency table of this machine, measured when not there")] = None,
    device: Annotated[str, typer.Option(help="where latency is measured: auto, cpu, cuda")] = "auto",
    dtype: Annotated[str, typer.Option(help="and in what: auto, float32, bfloat16")] = "auto",
    revision: Revision = None,
) -> None:
    from secateur.train.settings import token_count

    unlimited = 10**6 if budget is not None else 20
    effort: dict[str, Any] = {
        "initial": initial,
        "generations": unlimited if generations is None else generations,
        "offspring": offspring,
        "tokens": [token_count(t, "--tokens") for t in tokens.split(",")],
        "finalists": finalists,
        "heal": 0 if heal == "0" else token_count(heal, "--heal"),
        "repair": repair,
    }
    if effort["heal"] and not lessons:
        raise UsageError(f"--heal {heal} needs text to distil on, and --lessons is 0", hint="--heal 0, or more lessons")
    folder = work or save.with_name(save.stem + ".work")
    with api.open(model, revision=revision) as opened, bars() as progress, watching(budget) as watch:
        found = api.search(
            opened, text, strategy=strategy, budget=budget, axes=None if axes is None else _names(axes),
            depth=not keep_depth, context=context, sequences=sequences, stats=stats, effort=effort, out=save,
            work=folder, table=table, restart=restart, device=device, dtype=dtype, watch=watch, progress=progress,
            params=params, bytes=bytes, cache=cache, latency=latency, prefill=prefill, decode=decode,
            criterion=score, samples=samples, lessons=lessons, length=length, batch=batch, seed=seed,
        )  # fmt: skip
    _print(found)
    statistics = stats or folder / "stats.safetensors"
    out.print(
        f"plan written to {save}; apply it with: secateur prune {model} --plan {save} --stats {statistics} "
        f"--score {found.record['criterion']} --out DIR",
        soft_wrap=True,
        markup=False,
    )


def _names(text: str) -> list[str]:
    return [name for name in text.replace(" ", "").split(",") if name]


@contextmanager
def watching(budget: str | None) -> Iterator[Callable[[Arena], None]]:
    """The best so far and the front, live on a terminal; elsewhere a line whenever there is a better one."""
    said: list[str] = []
    live = Live(console=err, auto_refresh=False, transient=True) if err.is_terminal else None
    shown = 0.0

    def told(arena: Arena) -> None:
        nonlocal shown
        if live is not None:
            if time.monotonic() - shown > _REFRESH:
                live.start()
                live.update(_board(arena, budget), refresh=True)
                shown = time.monotonic()
        elif arena.best is not None and (line := _line(arena)) not in said:
            said.append(line)
            err.print(f"{line}, {arena.spent:,.0f} s", soft_wrap=True, markup=False)

    try:
        yield told
    finally:
        if live is not None:
            live.stop()


def _line(arena: Arena) -> str:
    assert arena.best is not None
    return f"best so far: KL {arena.best.score.kl:.4f} at stage {arena.best.stage.name}: {arena.best.shape}"


def _board(arena: Arena, budget: str | None) -> Table:
    """Time, the best candidate, and the front of its stage."""
    from secateur.search.front import fronts

    board = Table(title=f"{len(arena.scores):,} measured, {arena.spent:,.0f} s" + (f" of {budget}" if budget else ""))
    for column in ("stage", "KL", "parameters", "candidate"):
        board.add_column(column)
    best = arena.best
    points = [p for p in arena.points() if best is not None and p.stage.heal == best.stage.heal]
    shown = [p for p, on in zip(points, fronts(points), strict=True) if on]
    for p in sorted(shown, key=lambda p: p.score.kl)[:8]:
        mark = "[bold]" if best is not None and p.shape == best.shape else ""
        row = (p.stage.name, f"{p.score.kl:.4f}", human_count(p.costs["params"]), str(p.shape))
        board.add_row(*(mark + cell for cell in row))
    return board


def _print(found: Found) -> None:
    record = found.record
    winner = record["winner"]
    out.print(f"{record['strategy']}: {winner['text']}", soft_wrap=True, markup=False)
    for limit in record["limits"]:
        name, used = limit["resource"], winner["costs"][limit["resource"]]
        out.print(f"  {name}: {used / limit['amount']:.1%} of the limit, {used / limit['parent']:.1%} of the parent")
    out.print(f"  KL {winner['kl']:.4f}, loss {winner['nll']:.4f} nats per token at stage {winner['stage']['name']}")
    for a in record["agreements"]:
        out.print(f"  Kendall tau {a['before']} / {a['after']}: {a['tau']:+.2f} over {a['count']} candidates")
    front = sum(p["front"] for p in record["points"])
    out.print(f"  {record['measured']:,} measurements, {front} on a front, {record['spent_seconds']:,.0f} s")
    for note in record["notes"]:
        out.print(f"  note: {note}", soft_wrap=True, markup=False)
