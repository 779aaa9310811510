"""The search as a document: what was asked, what was measured, the Pareto front, the winner, and how stages agreed.

Every measurement that read text is listed with its stage, its costs and whether it is on the front of its stage. Times
are in it, so two runs differ there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateur.checkpoint import write_json
from secateur.checkpoint.files import read_small
from secateur.checkpoint.strict_json import parse_json
from secateur.errors import UsageError
from secateur.pruning.plan import Plan
from secateur.pruning.provenance import versions
from secateur.search.arena import Arena
from secateur.search.front import fronts, to_json
from secateur.search.outcome import Outcome
from secateur.search.planned import costs_of
from secateur.search.processes import rank, wait

VERSION = 1
ENDING = ".search.json"
_MAX_FILE = 256 << 20


def record(arena: Arena, outcome: Outcome, plan: Plan, strategy: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """The document; ``about``: settings that only the caller knows."""
    points = list(arena.points())
    score = arena.scores[outcome.winner, outcome.stage]
    return {
        "secateur_search": VERSION,
        "versions": versions(),
        "model": {"source": arena.model.source, "config_sha256": arena.model.config_sha256},
        "strategy": strategy,
        "criterion": arena.bench.criterion,
        "about": dict(about),
        "limits": [limit.to_json() for limit in arena.space.budget.limits],
        "spent_seconds": arena.spent,
        "measured": len(arena.scores),
        "agreements": [a.to_json() for a in outcome.agreements],
        "notes": list(outcome.notes),
        "details": dict(outcome.details),
        "winner": {
            "shape": outcome.winner.to_json(),
            "text": str(outcome.winner),
            "stage": outcome.stage.to_json(),
            "costs": dict(costs_of(outcome.winner, arena.space)),
            **score.to_json(),
        },
        "plan": plan.to_json(),
        "points": [to_json(p, on) for p, on in zip(points, fronts(points), strict=True)],
    }


def publish(plan: Plan, document: Mapping[str, Any], out: Path) -> None:
    """Write the plan to ``out`` and the record beside it; with several processes the first one writes."""
    if rank() == 0:
        write_json(beside(out), document)
        plan.save(out)
    wait()


def beside(plan: Path) -> Path:
    """Where the record of the search that wrote ``plan`` lies."""
    return plan.with_name(plan.stem + ENDING)


def load_record(path: Path) -> dict[str, Any]:
    """The record in ``path``, or beside it when it is a plan. Raises UsageError for a file that is neither."""
    path = beside(path) if beside(path).is_file() and not path.name.endswith(ENDING) else path
    data = parse_json(read_small(path, _MAX_FILE, UsageError), path=path, error=UsageError)
    if not isinstance(data, dict) or data.get("secateur_search") != VERSION:
        raise UsageError(
            f"{path} is no record of a search of version {VERSION}",
            hint="secateur search writes one beside its plan, PLAN.search.json",
        )
    return data
