"""``secateur distill``: heal a cut checkpoint by training it to agree with its parent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from secateur import api
from secateur.cli import options
from secateur.cli.common import err, human_count, out
from secateur.errors import UsageError

if TYPE_CHECKING:
    from secateur.train.loop import Step

NAME = "distill"
HELP = """Heal a cut checkpoint: train it to agree with its parent. A standard checkpoint comes out; a run that was
interrupted is resumed by the same command.

Examples:

    secateur distill ./child --teacher ./parent --text books/ --tokens 20M --out ./healed

    secateur distill ./child --teacher ./parent --text c4.jsonl --tokens 2B --top-k 512 --cache ./teacher --out ./healed

    accelerate launch -m secateur distill ./child --teacher ./parent --text c4.jsonl --tokens 2B --out ./healed"""

Text = Annotated[list[str], typer.Option(help="text file, .jsonl, .parquet, folder, or hf://owner/name (repeatable)")]


def run(
    student: Annotated[str, typer.Argument(help="the checkpoint to heal: folder or hub id")],
    text: Text,
    tokens: Annotated[str, typer.Option(help="tokens to train on, as 20M")],
    save: options.Result,
    teacher: Annotated[str | None, typer.Option(help="the parent; not needed with --ce 1")] = None,
    length: Annotated[int, typer.Option(help="tokens in a window")] = 512,
    batch: Annotated[int, typer.Option(help="windows in a step, over all processes")] = 16,
    micro_batch: Annotated[int, typer.Option(help="windows in memory at once, per process")] = 4,
    lr: Annotated[float, typer.Option(help="peak learning rate; a cosine ends at a twentieth of it")] = 1e-4,
    warmup: Annotated[int | None, typer.Option(help="steps of warm-up [default: 60, a tenth of short runs]")] = None,
    weight_decay: Annotated[float, typer.Option(help="decay of matrices")] = 0.1,
    clip: Annotated[float, typer.Option(help="largest norm of a gradient")] = 1.0,
    loss: Annotated[str, typer.Option(help="divergence from the teacher: kl, reverse-kl, js")] = "kl",
    temperature: Annotated[float, typer.Option(help="of both distributions")] = 1.0,
    ce: Annotated[float, typer.Option(help="share of cross-entropy with the text, 0 to 1")] = 0.0,
    hidden: Annotated[str | None, typer.Option(help="loss between hidden states, for depth cuts: cosine, mse")] = None,
    hidden_layers: Annotated[
        str | None, typer.Option(help="student:teacher layers, as 3:5,7:11 [default: where layers were dropped]")
    ] = None,
    hidden_weight: Annotated[float, typer.Option(help="size of the hidden-state loss relative to the rest")] = 1.0,
    correct_teacher: Annotated[str | None, typer.Option(help="train the teacher on so many tokens first")] = None,
    eval_text: Annotated[
        list[str] | None, typer.Option(help="held-out text whose loss is logged along (repeatable)")
    ] = None,
    eval_every: Annotated[int | None, typer.Option(help="steps between two held-out losses [default: 1/20]")] = None,
    top_k: Annotated[int | None, typer.Option(help="write the teacher's k likeliest tokens to disk, once")] = None,
    cache: Annotated[Path | None, typer.Option(help="folder of the teacher on disk, to use again")] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="compute in bfloat16; weights stay float32")] = False,
    chunk: Annotated[int, typer.Option(help="tokens whose logits exist at once")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="seed of the order of the text")] = 0,
    repeat: Annotated[bool, typer.Option("--repeat", help="start over when the text is too short")] = False,
    save_every: Annotated[int | None, typer.Option(help="steps between saved states [default: 1/20]")] = None,
    work: Annotated[Path | None, typer.Option(help="folder of the unfinished run [default: OUT.work]")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; several GPUs through accelerate launch")] = "auto",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="write event files as well")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="throw an unfinished run away")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing checkpoint at --out")] = False,
) -> None:
    with _bar() as bar:
        api.distill(
            student, text, tokens=tokens, out=save, teacher=teacher, correct_teacher=correct_teacher or 0,
            eval_text=eval_text or None, eval_every=eval_every, work=work, cache=cache, overwrite=overwrite,
            restart=restart, tensorboard=tensorboard, device=device, reporter=bar,
            length=length, batch=batch, micro_batch=micro_batch, lr=lr, warmup=warmup, weight_decay=weight_decay,
            clip=clip, loss=loss, temperature=temperature, ce=ce, hidden=hidden,
            hidden_layers=parse_pairs(hidden_layers), hidden_weight=hidden_weight, top_k=top_k, bf16=bf16, seed=seed,
            chunk=chunk, save_every=save_every, repeat=repeat,
        )  # fmt: skip
    if bar.last is not None:
        print_result(save, bar.last)


def parse_pairs(text: str | None) -> tuple[tuple[int, int], ...]:
    """``3:5,7:11`` -> ((3, 5), (7, 11))."""
    found = []
    for item in filter(None, (text or "").replace(" ", "").split(",")):
        if not re.fullmatch(r"\d{1,6}:\d{1,6}", item):
            raise UsageError(f"--hidden-layers: {item!r} is no pair student:teacher; write 3:5,7:11")
        mine, its = item.split(":")
        found.append((int(mine), int(its)))
    return tuple(found)


class Bar:
    """One bar with loss, tokens a second and time left; without a terminal, a line now and then."""

    LINES = 20

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.last: Step | None = None
        self.held_out: float | None = None
        self._task: tuple[str, TaskID] | None = None

    def note(self, text: str) -> None:
        self.bar.console.print(text, markup=False)

    def progress(self, label: str, done: int, total: int) -> None:
        self._show(label, "", done, total)

    def step(self, step: Step, steps: int) -> None:
        self.last = step
        self.held_out = step.held_out.get("held_out", self.held_out)
        held_out = "" if self.held_out is None else f"  held-out {self.held_out:.4f}"
        told = f"loss {step.loss:.4f}{held_out}  {step.tokens_per_second:,.0f} tokens/s"
        self._show("distilling", told, step.step, steps)
        if not self.bar.console.is_terminal and (step.step % max(1, steps // self.LINES) == 0 or step.step == steps):
            left = step.seconds / step.step * (steps - step.step)
            self.note(f"step {step.step}/{steps}  {told}  lr {step.lr:.2e}  {left:,.0f} s left")

    def _show(self, label: str, told: str, done: int, total: int) -> None:
        if self._task is None or self._task[0] != label:
            if self._task is not None:
                self.bar.remove_task(self._task[1])
            self._task = label, self.bar.add_task(label, told=told)
        self.bar.update(self._task[1], completed=done, total=total, told=told)


@contextmanager
def _bar() -> Iterator[Bar]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[told]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        yield Bar(bar)


def print_result(folder: Path, last: Step) -> None:
    import json

    result = json.loads((folder / "secateur.json").read_text())["result"]
    first, held_out = result["first"], result.get("held_out")
    out.print(f"wrote {folder}: {human_count(last.tokens)} tokens in {last.seconds:,.0f} s", soft_wrap=True)
    out.print(f"loss {first['loss']:.4f} -> {last.loss:.4f}, cross-entropy {first['ce']:.4f} -> {last.ce:.4f}")
    if held_out is not None:
        out.print(f"held-out cross-entropy {held_out['first']:.4f} -> {held_out['last']:.4f}")
    out.print(f"every step: {folder / 'metrics.jsonl'}", soft_wrap=True)
