"""One-shot methods: which units stay, and what is mended without gradients."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.halving import blind, flap_bias
from benchmarks.halving.bench import Bench
from benchmarks.halving.shapes import inner, sizes

from secateur.model import Model, open_model
from secateur.pruning.norms import NormMode
from secateur.pruning.plan import make_plan
from secateur.pruning.repair.run import RepairSettings, repair
from secateur.pruning.run import Settings, prune


@dataclass(frozen=True)
class Method:
    """``score``: criterion; ``norm``: of the cut; ``repairs``: closed forms; ``bias``: FLAP's compensation;
    ``blind``: heads ranked over the borders of groups, and laid out in their old order or by rank."""

    score: str
    norm: NormMode = "auto"
    repairs: tuple[str, ...] = ()
    bias: bool = False
    blind: Literal["", "old order", "by rank"] = ""


BOTH = ("norm", "least-squares")
METHODS: dict[str, Method] = {
    "ours": Method("contribution", repairs=BOTH),
    "ours, no norm factor": Method("contribution", norm="none", repairs=("least-squares",)),
    "ours, no least squares": Method("contribution", repairs=("norm",)),
    "ours, no repair": Method("contribution"),
    "published recipe": Method("activation", norm="none"),
    "published recipe, exact norms": Method("activation"),
    "activation + our repair": Method("activation", repairs=BOTH),
    "FLAP": Method("flap", bias=True),
    "FLAP, no bias": Method("flap"),
    "FLAP + our repair": Method("flap", repairs=BOTH),
    "magnitude": Method("magnitude"),
    "magnitude + our repair": Method("magnitude", repairs=BOTH),
    "random in groups": Method("random"),
    "random in groups + our repair": Method("random", repairs=BOTH),
    "Taylor": Method("taylor"),
    "Taylor + our repair": Method("taylor", repairs=BOTH),
    "group-blind, old order": Method("activation", norm="none", blind="old order"),
    "group-blind, by rank": Method("activation", norm="none", blind="by rank"),
    "group-blind, by rank + least squares": Method(
        "activation", norm="none", blind="by rank", repairs=("least-squares",)
    ),
}


def make(bench: Bench, shape: str, method: str, seed: int, out: Path) -> tuple[Model, dict[str, Any]]:
    """The child of ``method`` at ``out``, and what is to be said about it."""
    chosen, parent, stats = METHODS[method], bench.model, bench.stats(seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    for folder in (out, scratch(out, "cut"), scratch(out, "moved")):
        shutil.rmtree(folder, ignore_errors=True)
    plan = make_plan(parent, keep=sizes(parent, shape))
    facts: dict[str, Any] = {"inner_parameters": 0, "part": 0.0}
    cut_at, source = scratch(out, "cut"), parent
    settings = Settings(score=chosen.score, seed=seed, norm=chosen.norm)
    if chosen.blind:
        to, by_rank = scratch(out, "moved"), chosen.blind == "by rank"
        source, facts["misplaced_heads"] = blind.move_heads(parent, stats, sizes(parent, shape), to, by_rank=by_rank)
        settings = Settings(score="first", norm=chosen.norm)
    child = prune(source, plan, cut_at, settings, stats=stats)
    if chosen.bias:
        child = flap_bias.compensate(parent, child, stats, out)
    elif chosen.repairs:
        child, log = repair(child, parent, bench.windows(seed), out, RepairSettings(methods=chosen.repairs, batch=4))
        facts["applied"] = sum(r.applied for r in log)
        facts["attempts"] = len(log)
        facts["stream_error"] = log[-1].after if log[-1].applied else log[-1].before
    else:
        cut_at.rename(out)
        child = open_model(out)
    facts["inner_parameters"], facts["part"] = inner(child), inner(child) / inner(parent)
    for folder in (cut_at, scratch(out, "moved")):
        shutil.rmtree(folder, ignore_errors=True)
    return child, facts


def scratch(out: Path, what: str) -> Path:
    return out.with_name(f"{out.name}.{what}")
