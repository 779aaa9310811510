"""What other steps left in a checkpoint's folder that belongs on its report: the record, healing and importance.

    secateur.json      what was done (without the kept units, which only a later cut needs)
    metrics.jsonl      one line per logged step of the healing: {"step": 10, "tokens": 40960, "loss": 3.21, ...}
    importance.json    {"secateur_importance": 1, "criterion": "...",
                        "curves": [{"axis": "ffn", "scope": "3", "scores": [0.9, ...]}, ...]}

Each may be absent. ``scope``: '' the whole model, a layer's index, or another name of a place; ``scores``: one number
per unit, in any order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from secateur.errors import UsageError
from secateur.pruning.provenance import FILE

METRICS, IMPORTANCE = "metrics.jsonl", "importance.json"
IMPORTANCE_VERSION = 1
T = TypeVar("T")
POINTS = 400
"""A curve keeps at most so many points: more than a screen can show apart."""


def record(folder: Path) -> dict[str, Any] | None:
    """secateur.json without the kept units, or None."""
    document = _json(folder / FILE)
    if document is not None and not isinstance(document, dict):
        raise UsageError(f"{folder / FILE}: holds {type(document).__name__}, expected an object")
    return None if document is None else _without_kept(document)


def _without_kept(entry: dict[str, Any]) -> dict[str, Any]:
    """A step's record and those of the steps before it, which later records hold inside."""
    return {
        k: _without_kept(v) if k == "before" and isinstance(v, dict) else v for k, v in entry.items() if k != "kept"
    }


def healing(path: Path) -> list[dict[str, float]] | None:
    """Logged steps in order, thinned evenly to POINTS with the first and last kept; None when there is no file.

    A last line that was cut off by a kill is passed over; any other broken line raises UsageError naming it.
    """
    if not path.is_file():
        return None
    lines = _text(path).splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as cause:
            if number == len(lines):
                break
            raise UsageError(f"{path}:{number}: not a line of JSON: {cause}") from cause
        if not isinstance(entry, dict):
            raise UsageError(f"{path}:{number}: {type(entry).__name__}, expected an object with step, tokens and loss")
        found.append({k: v for k, v in entry.items() if _number(v)})
    # held-out losses are few and far between: thinning all lines alike would lose them
    measured = thin([line for line in found if "held_out" in line])
    return sorted(thin([line for line in found if "held_out" not in line]) + measured, key=_step)


def _step(line: dict[str, float]) -> float:
    return line.get("step", 0.0)


def importance(path: Path) -> dict[str, Any] | None:
    """The importance document, its scores sorted falling and thinned; None when there is no file."""
    document = _json(path)
    if document is None:
        return None
    if not isinstance(document, dict) or document.get("secateur_importance") != IMPORTANCE_VERSION:
        raise UsageError(f"{path}: expected an object with secateur_importance: {IMPORTANCE_VERSION} and curves")
    curves = document.get("curves")
    if not isinstance(curves, list):
        raise UsageError(f"{path}: curves is {type(curves).__name__}, expected a list")
    return {"criterion": str(document.get("criterion", "")), "curves": [_curve(path, c) for c in curves]}


def _curve(path: Path, curve: Any) -> dict[str, Any]:
    scores = curve.get("scores") if isinstance(curve, dict) else None
    if not isinstance(scores, list) or not scores or not all(_number(s) for s in scores) or "axis" not in curve:
        raise UsageError(f"{path}: every curve needs an axis, a scope and scores, a list of finite numbers")
    ranked = sorted(map(float, scores), reverse=True)
    points = thin([{"rank": float(i + 1), "score": s} for i, s in enumerate(ranked)])
    return {"axis": str(curve["axis"]), "scope": str(curve.get("scope", "")), "units": len(scores), "points": points}


def thin(values: Sequence[T], most: int = POINTS) -> list[T]:
    """At most ``most`` of the values, evenly spaced, ends included."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(_text(path))
    except ValueError as cause:
        raise UsageError(f"{path}: not JSON: {cause}") from cause


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise UsageError(f"{path}: cannot be read: {cause}") from cause


__all__ = ["IMPORTANCE", "METRICS", "healing", "importance", "record", "thin"]
