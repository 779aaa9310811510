"""Train a small parent on real text, in one process or several; stop it at any time, kill it at any time.

    export SECATEUR_DATA=FOLDER                      # FOLDER/train/*.txt and FOLDER/eval/*heldout*.txt
    python -m benchmarks.parents.train hybrid --work OUT [--tokens 20000000 | --until 16:10]
    torchrun --nproc-per-node 2 -m benchmarks.parents.train hybrid --work OUT ...      # one thread each on a CPU

The same command continues an interrupted run; under --tokens, on one machine and with the same number of processes, it
repeats the uninterrupted one bit for bit. ``--decay-now --until HH:MM`` ends a run early and well; ``--export``
publishes the last checkpoint as it is. OUT/NAME/ gets checkpoint.pt (latest), stable.pt (before the decay), log.jsonl
and final/.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from benchmarks.parents import card, checkpoint, processes
from benchmarks.parents.configs import parent_config
from benchmarks.parents.data import Rows, Shuffled, find_text, load_tokenizer, token_bytes, tokenize
from benchmarks.parents.schedule import Schedule, plan, wall_clock
from benchmarks.parents.settings import Settings, parse
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from secateur.errors import SecateurError
from secateur.kernels import fast


class DivergedError(SecateurError):
    """The loss is no number any more."""


@dataclass
class Run:
    """One training run in memory."""

    settings: Settings
    folder: Path
    tokenizer: PreTrainedTokenizerFast
    train: Rows
    held_out: Rows
    held_out_file: Path
    byte_counts: Tensor
    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    order: Shuffled
    identity: dict[str, Any]
    device: torch.device
    step: int = 0
    rows: int = 0
    decayed: bool = False
    schedule: Schedule | None = None

    @property
    def tokens(self) -> int:
        return self.rows * self.settings.length

    @property
    def bf16(self) -> bool:
        return processes.computes_in_bf16(self.device, self.settings.precision)

    @property
    def batch_rows(self) -> int:
        return self.settings.batch * processes.count()


def prepare(settings: Settings) -> Run:
    """Text, tokenizer, tokens, and a model with random weights."""
    text = find_text(settings.data, settings.held_out)
    folder = settings.work / settings.parent
    folder.mkdir(parents=True, exist_ok=True)
    with processes.first_alone():
        tokenizer = load_tokenizer(settings.work / "tokenizer", text.train, settings.vocabulary)
        train = tokenize(text.train, tokenizer, settings.work)
        held_out = tokenize([text.held_out], tokenizer, settings.work)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = parent_config(settings.parent, {"vocab_size": len(tokenizer), **ids}, settings.config)
    device = processes.device()
    torch.manual_seed(settings.seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(device).train()
    rows = Rows(train, settings.length, tokenizer.bos_token_id)
    identity = {
        "config": {k: v for k, v in config.to_dict().items() if isinstance(v, (int, float, str, bool, list))},
        "text": {"tokens": len(train), "files": [file.name for file in text.train]},
        "processes": processes.count(),
    } | {k: getattr(settings, k) for k in ("length", "batch", "rate", "weight_decay", "clip", "warmup", "seed")}
    return Run(
        settings,
        folder,
        tokenizer,
        rows,
        Rows(held_out, settings.length, tokenizer.bos_token_id),
        text.held_out,
        token_bytes(tokenizer).to(device),
        model,
        make_optimizer(model, settings),
        Shuffled(len(rows), settings.seed),
        json.loads(json.dumps(identity)),
        device,
    )


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW that decays matrices and convolutions, and neither vectors nor what transformers exempts (A_log, D)."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        groups[parameter.ndim >= 2 and not getattr(parameter, "_no_weight_decay", False)].append(parameter)
    parts: list[dict[str, Any]] = [{"params": groups[True]}, {"params": groups[False], "weight_decay": 0.0}]
    return torch.optim.AdamW(
        parts,
        lr=settings.rate,
        weight_decay=settings.weight_decay,
        betas=(0.9, 0.95),
        fused=True,
    )


def resume(run: Run) -> None:
    """Takes up the run's checkpoint where there is one, and settles the schedule."""
    path = run.folder / "checkpoint.pt"
    kept: Schedule | None = None
    if path.exists():
        state = checkpoint.load(path, run.identity)
        run.model.load_state_dict(state.model)
        run.optimizer.load_state_dict(state.optimizer)
        run.step, run.rows, run.decayed = state.step, state.rows, state.decayed
        kept = Schedule(**state.schedule)
    run.schedule = settle(run, kept)
    say(f"{'continues at' if path.exists() else 'starts at'} step {run.step}, {run.tokens:,} tokens; {run.schedule}")


def settle(run: Run, kept: Schedule | None) -> Schedule:
    """The interrupted run's schedule, unless the end was moved: a clock once set stays set, so the same command may be
    repeated after its hour has come."""
    settings, clock = run.settings, run.settings.until is not None
    position = where(run, clock)
    if kept is not None and kept.clock == clock and not settings.decay_now and (clock or kept.end == settings.tokens):
        return kept
    end = wall_clock(settings.until, datetime.now()) if settings.until else float(settings.tokens)
    begin = kept.begin if kept is not None and kept.clock == clock else (position if clock else 0.0)
    return plan(begin, end, settings.decay_share, clock=clock, decay_now=position if settings.decay_now else None)


def where(run: Run, clock: bool) -> float:
    """The run's position in its schedule's unit."""
    return time.time() if clock else float(run.tokens)


def loss_of(run: Run, inputs: Tensor, targets: Tensor) -> Tensor:
    """Nats per target (targets,), in fp32; forward in the run's precision."""
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.bf16):
        logits = run.model(input_ids=inputs.to(run.device), use_cache=False).logits
    return functional.cross_entropy(logits.float().flatten(0, 1), targets.to(run.device).flatten(), reduction="none")


def train_step(run: Run, factor: float) -> tuple[float, float]:
    """One optimizer step. Returns the loss of all processes' rows before it (nats per token) and the gradient norm."""
    first = run.rows + processes.rank() * run.settings.batch
    inputs, targets = run.train.take([run.order.at(first + i) for i in range(run.settings.batch)])
    loss = loss_of(run, inputs, targets).mean()
    torch.autograd.backward(loss)
    shared = processes.average_gradients(list(run.model.parameters()), loss.item())
    if not math.isfinite(shared):
        raise DivergedError(
            f"the loss is {shared} at step {run.step}",
            hint=f"the last checkpoint is in {run.folder}; start anew with a lower --rate",
        )
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), run.settings.clip)
    for group in run.optimizer.param_groups:
        group["lr"] = run.settings.rate * factor
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.step, run.rows = run.step + 1, run.rows + run.batch_rows
    return shared, norm.item()


@torch.no_grad()
def score(run: Run, rows: int | None = None) -> tuple[float, float, int]:
    """Held-out bits per byte, nats per token and bytes scored, on ``rows`` evenly spread rows or on all."""
    count = len(run.held_out)
    chosen = list(range(count)) if rows is None or rows >= count else [i * count // rows for i in range(rows)]
    sums = torch.zeros(3, dtype=torch.float64)
    run.model.eval()
    for i in range(processes.rank(), len(chosen), processes.count()):
        inputs, targets = run.held_out.take([chosen[i]])
        nats = loss_of(run, inputs, targets).sum(dtype=torch.float64)
        size = run.byte_counts[targets.to(run.device)].sum()
        sums += torch.stack([nats, size, size.new_tensor(targets.numel())]).cpu()
    run.model.train()
    nats_sum, size_sum, tokens = processes.total(sums).tolist()
    return nats_sum / math.log(2) / size_sum, nats_sum / tokens, int(size_sum)


def save(run: Run, name: str = "checkpoint.pt") -> None:
    if processes.rank() == 0 and run.schedule is not None:
        state = checkpoint.State(
            run.step,
            run.rows,
            run.schedule.state(),
            run.decayed,
            run.identity,
            run.model.state_dict(),
            run.optimizer.state_dict(),
        )
        checkpoint.save(state, run.folder / name)


def train(run: Run) -> None:
    """To the schedule's end; the first process alone reads the clock and tells the others."""
    settings, schedule = run.settings, run.schedule
    assert schedule is not None
    meter, saved = Meter(run, schedule), time.time()
    while True:
        position, now = processes.tell(where(run, schedule.clock), time.time())
        if schedule.done(position):
            break
        if schedule.decaying(position) and not run.decayed:
            save(run, "stable.pt")
        run.decayed = schedule.decaying(position)
        factor = schedule.factor(position, run.step, settings.warmup)
        loss, norm = train_step(run, factor)
        if run.step % settings.eval_every == 0:
            meter.bits = score(run, settings.eval_rows)[0]
        meter.add(loss, norm, factor)
        if now - saved >= settings.save_every:
            save(run)
            saved = time.time()
    save(run)


class Meter:
    """Progress lines, and a log of every step's loss for whoever draws the curve."""

    def __init__(self, run: Run, schedule: Schedule) -> None:
        self.run, self.schedule = run, schedule
        self.bits: float | None = None
        self._losses: list[float] = []
        self._since, self._tokens = time.time(), run.tokens

    def add(self, loss: float, norm: float, factor: float) -> None:
        run = self.run
        self._losses.append(loss)
        if processes.rank() == 0:
            line = {"step": run.step, "tokens": run.tokens, "loss": loss, "norm": norm, "bits_per_byte": self.bits}
            with (run.folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | {"rate": run.settings.rate * factor, "time": time.time()}) + "\n")
        if run.step % run.settings.report_every == 0:
            self._report(norm, factor)

    def _report(self, norm: float, factor: float) -> None:
        run, now = self.run, time.time()
        speed = (run.tokens - self._tokens) / max(now - self._since, 1e-9)
        left = self.schedule.end - where(run, self.schedule.clock)
        seconds = left if self.schedule.clock else left / max(speed, 1e-9)
        bits = "-" if self.bits is None else f"{self.bits:.4f}"
        say(
            f"step {run.step}  {run.tokens / 1e6:.2f} M tokens  loss {sum(self._losses) / len(self._losses):.4f}  "
            f"held-out {bits} bits/byte  rate {run.settings.rate * factor:.2e}  norm {norm:.2f}  "
            f"{speed:,.0f} tokens/s  ETA {seconds / 60:.0f} min"
        )
        self._losses, self._since, self._tokens = [], now, run.tokens


def export(run: Run) -> None:
    """The bf16 weights in OUT/NAME/final, scored as they lie on disk on the whole held-out file."""
    settings, final = run.settings, run.folder / "final"
    with processes.first_alone():
        if processes.rank() == 0:
            card.stage(run.model.to(torch.bfloat16), run.tokenizer, final)
    staging = final.with_name("final.staging")
    dtype = torch.bfloat16 if run.bf16 else torch.float32
    run.model = AutoModelForCausalLM.from_pretrained(staging, dtype=dtype).to(run.device)
    with fast(run.model):
        bits, nats, size = score(run)
    if processes.rank() != 0:
        return
    schedule = run.schedule
    facts = card.Facts(
        name=f"secateur-parent-{settings.parent}",
        model_type=run.model.config.model_type,
        licence=settings.licence,
        text=settings.text or ", ".join(run.identity["text"]["files"]),
        parameters=sum(p.numel() for p in run.model.parameters()),
        embedding=card.embedding_parameters(run.model),
        tokens=run.tokens,
        available=len(run.train) * settings.length,
        length=settings.length,
        bits=bits,
        nats=nats,
        held_out=run.held_out_file.name,
        held_out_bytes=size,
        vocabulary=len(run.tokenizer),
        steps=run.step,
        arithmetic="bf16 autocast over fp32 weights" if run.bf16 else "fp32",
        batch_tokens=run.batch_rows * settings.length,
        rate=settings.rate,
        weight_decay=settings.weight_decay,
        clip=settings.clip,
        warmup=settings.warmup,
        decay_tokens=decay_tokens(run.folder, run.tokens),
        seed=settings.seed,
    )
    card.publish(staging, final, facts)
    result = {"bits_per_byte": bits, "nats_per_token": nats, "tokens": run.tokens, "steps": run.step}
    (run.folder / "result.json").write_text(json.dumps(result | {"schedule": schedule and schedule.state()}, indent=1))
    say(f"published {final}: {bits:.4f} bits per byte, {nats:.4f} nats per token on {size:,} bytes")


def decay_tokens(folder: Path, tokens: int) -> int:
    """Tokens seen under a falling rate after the warm-up, as logged."""
    log = folder / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    peak = max((line["rate"] for line in lines), default=0.0)
    return tokens - max((line["tokens"] for line in lines if line["rate"] >= peak), default=tokens)


def say(text: str) -> None:
    if processes.rank() == 0:
        print(f"{datetime.now():%H:%M:%S}  {text}", flush=True)


@contextlib.contextmanager
def errors_as_messages() -> Iterator[None]:
    try:
        yield
    except SecateurError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def main(arguments: list[str] | None = None) -> None:
    transformers.logging.set_verbosity_error()
    with errors_as_messages(), processes.together():
        run = prepare(parse(arguments))
        with fast(run.model) as report:
            for left in report.left:
                say(f"slow: {left.name} ({left.module}): {left.reason}")
            say(f"{run.settings.parent}: {sum(p.numel() for p in run.model.parameters()):,} parameters")
            resume(run)
            if not run.settings.export:
                train(run)
        export(run)


if __name__ == "__main__":
    main()
