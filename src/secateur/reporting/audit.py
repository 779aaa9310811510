"""The audit for reading: tensors that met the same fate under names that differ in numbers only share a row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_NUMBER = re.compile(r"(?<![A-Za-z0-9_])\d+(?![A-Za-z0-9_])")


def steps(record: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The audits of a checkpoint's steps, the first step first; a later record holds the earlier one as ``before``."""
    found: list[dict[str, Any]] = []
    while isinstance(record, Mapping):
        audit = record.get("audit")
        if isinstance(audit, Mapping):
            found.insert(0, _step(str(record.get("step", "")), audit))
        record = record.get("before")
    return found


def _step(name: str, audit: Mapping[str, Any]) -> dict[str, Any]:
    summary = audit.get("summary") or {}
    files = audit.get("files") or {}
    return {
        "step": name,
        "summary": [(str(action), n) for action, n in summary.items()],
        "rows": list(_rows(audit.get("tensors") or {})),
        "files": sorted((str(k), str(v)) for k, v in files.items()),
    }


def _rows(tensors: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    groups: dict[tuple[str, ...], list[tuple[tuple[int, ...], Mapping[str, Any]]]] = {}
    for name, entry in tensors.items():
        shape = " × ".join(map(str, entry.get("shape", ())))
        renamed = _NUMBER.sub("*", str(entry.get("name", "")))
        key = (_NUMBER.sub("*", name), str(entry.get("action", "")), shape, str(entry.get("why", "")), renamed)
        groups.setdefault(key, []).append((tuple(map(int, _NUMBER.findall(name))), entry))
    for (pattern, action, shape, why, renamed), members in groups.items():
        factors = [float(e["factor"]) for _, e in members if "factor" in e]
        yield {
            "pattern": pattern,
            "index": ranges([i for i, _ in members]),
            "count": len(members),
            "action": action,
            "shape": shape,
            "detail": "; ".join(filter(None, (_factor(factors), renamed and f"now {renamed}", why))),
        }


def _factor(factors: list[float]) -> str:
    if not factors:
        return ""
    low, high = min(factors), max(factors)
    return f"times {low:.4g}" if high - low < 5e-5 * abs(high) else f"times {low:.4g} to {high:.4g}"


def ranges(indices: list[tuple[int, ...]]) -> str:
    """(0,1) (0,2) (0,3) (1,1) -> ``0,1-3;1,1``: runs of the last number, for a page that spells the names out again."""
    out: list[str] = []
    run: tuple[tuple[int, ...], int, int] | None = None
    for index in sorted(indices):
        if not index:
            return ""
        lead, last = index[:-1], index[-1]
        if run is not None and run[0] == lead and run[2] + 1 == last:
            run = (lead, run[1], last)
            continue
        if run is not None:
            out.append(_run(*run))
        run = (lead, last, last)
    return ";".join(out + ([_run(*run)] if run is not None else []))


def _run(lead: tuple[int, ...], first: int, last: int) -> str:
    return ",".join([*map(str, lead), str(first) if first == last else f"{first}-{last}"])


__all__ = ["ranges", "steps"]
