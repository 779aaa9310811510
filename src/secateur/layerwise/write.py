"""The work folder of a finished walk -> a standard checkpoint with its record and audit."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from secateur.checkpoint import TensorSpec, publish, write_json, write_tensors
from secateur.checkpoint.passengers import copy_passengers, list_passengers
from secateur.errors import CheckpointError
from secateur.layerwise.engine import Engine
from secateur.model import Model
from secateur.pruning.provenance import FILE, FORMAT, history, versions

_NUMBER = re.compile(r"(?<![A-Za-z0-9_])\d+(?![A-Za-z0-9_])")
DONE = {"sparsify": "sparsified", "quantize": "quantized", "factorize": "factorized"}


def publish_result(
    model: Model, engine: Engine, out: Path, left: Mapping[str, str], record: dict[str, Any], overwrite: bool
) -> None:
    """Write ``out`` whole or not at all. Every tensor of the parent is in the audit.

    Raises CheckpointError when a tensor is neither solved nor left for a reason, or the disk refuses.
    """
    audit = audited(model, lines(engine.work), left, record["step"])
    with publish(out, overwrite=overwrite) as staging:
        replaced, parts = _replacements(engine.work)
        specs = list(_specs(model, replaced, parts))

        def produce(spec: TensorSpec) -> torch.Tensor:
            if spec.name not in replaced:
                return model.read(spec.name)
            # opened for each tensor: what stays mapped counts as memory
            with safe_open(replaced[spec.name][0], "pt") as file:
                made: torch.Tensor = file.get_tensor(spec.name)
            return made

        write_tensors(staging, specs, produce)
        write_json(staging / "config.json", engine.storage.config(model.raw))
        passengers = copy_passengers(model.folder, staging, list_passengers(model.folder))
        audit["files"] = {p.name: p.action if p.action == "carried" else f"left: {p.reason}" for p in passengers}
        whole = {"secateur": FORMAT, **record, "versions": versions(), "audit": audit, "before": history(model)}
        write_json(staging / FILE, whole)
        engine.storage.finish(model, staging)


def lines(work: Path) -> list[dict[str, Any]]:
    """The audit lines of every layer, in order."""
    return [
        line for path in sorted(work.glob("*.json")) if path.name != "run.json" for line in json.loads(path.read_text())
    ]


def audited(model: Model, found: list[dict[str, Any]], left: Mapping[str, str], step: str) -> dict[str, Any]:
    """One entry for each tensor on disk; ``lines`` tells of matrices, one for each linear."""
    tensors: dict[str, dict[str, Any]] = {n: {"action": "left", "why": why} for n, why in left.items()}
    for line in found:
        entry = tensors.setdefault(line["tensor"], {"action": "left", "why": line["why"]})
        if line["action"] == "done":
            entry["action"] = DONE[step]
            entry.pop("why", None)
    for name, why in model.left.items():
        tensors[name] = {"action": "left behind", "why": why}
    lost = sorted(set(model.anatomy.tensors) - set(tensors))
    if lost:
        raise CheckpointError(f"{len(lost)} tensors were neither solved nor left for a reason: {', '.join(lost[:3])}")
    order = [
        *(n for n in model.weights.tensors if n in tensors),
        *(n for n in model.left if n not in model.weights.tensors),
    ]
    summary = Counter(t["action"] for t in tensors.values())
    return {"summary": dict(sorted(summary.items())), "tensors": {n: tensors[n] for n in order}, "linears": found}


@dataclass(frozen=True)
class Row:
    """Linears, or tensors that were left, whose names differ in numbers only. Errors: smallest and largest, None where
    none is known."""

    name: str
    count: int
    solved: bool
    predicted: tuple[float, float] | None
    measured: tuple[float, float] | None
    why: str

    @staticmethod
    def said(span: tuple[float, float] | None) -> str:
        """``1.2e-02 .. 3.4e-02``"""
        if span is None:
            return "-"
        return f"{span[0]:.1e}" if span[0] == span[1] else f"{span[0]:.1e} .. {span[1]:.1e}"


def read_audit(folder: Path) -> dict[str, Any]:
    """The audit of a checkpoint that a layer-wise method wrote."""
    found: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))["audit"]
    return found


def folded(audit: Mapping[str, Any]) -> list[Row]:
    """The audit's linears, then the tensors that were left, by the names they share."""
    groups: dict[tuple[str, bool, str], list[Mapping[str, Any]]] = {}
    linears = {line["tensor"] for line in audit["linears"]}
    for line in audit["linears"]:
        key = _NUMBER.sub("*", line["tensor"]), line["action"] == "done", _NUMBER.sub("*", line["why"])
        groups.setdefault(key, []).append(line)
    for name, entry in audit["tensors"].items():
        if name not in linears:
            groups.setdefault((_NUMBER.sub("*", name), False, entry["why"]), []).append({})
    return [
        Row(name, len(lines), solved, _span(lines, "predicted"), _span(lines, "measured"), why)
        for (name, solved, why), lines in groups.items()
    ]


def _span(lines: Sequence[Mapping[str, Any]], what: str) -> tuple[float, float] | None:
    known = [float(v) for line in lines if (v := line.get(what)) is not None]
    return (min(known), max(known)) if known else None


def _replacements(work: Path) -> tuple[dict[str, tuple[Path, TensorSpec]], dict[str, list[str]]]:
    """(tensor -> the file of the work folder that holds it and what it is, parent's tensor -> what takes its place)."""
    found: dict[str, tuple[Path, TensorSpec]] = {}
    parts: dict[str, list[str]] = {}
    for path in sorted(work.glob("*.safetensors")):
        with safe_open(path, "pt") as opened:
            for name, parent in json.loads((opened.metadata() or {})["parents"]).items():
                stored = opened.get_slice(name)
                found[name] = path, TensorSpec(name, stored.get_dtype(), tuple(stored.get_shape()))
                parts.setdefault(parent, []).append(name)
    return found, parts


def _specs(
    model: Model, replaced: Mapping[str, tuple[Path, TensorSpec]], parts: Mapping[str, list[str]]
) -> Iterator[TensorSpec]:
    """Tensors of the result in the parent's order; what takes a tensor's place comes at its place."""
    for name, info in model.weights.tensors.items():
        yield from (replaced[part][1] for part in parts.get(name, ()))
        if name in model.anatomy.tensors and name not in parts:
            yield TensorSpec(name, info.dtype, info.shape)
