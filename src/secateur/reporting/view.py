"""What each part of the page says, as plain data: the template only lays it out."""

from __future__ import annotations

from typing import Any

from secateur.anatomy.axes import PUBLIC
from secateur.reporting import audit, searches, words
from secateur.reporting.collect import Collected

Entry = dict[str, Any]


def view(found: Collected) -> dict[str, Any]:
    """Everything the template shows; strings are not escaped here."""
    children = [m for m in found.models if m["role"] not in ("parent", "reduced")]
    return {
        "title": _title(found, children),
        "cards": _cards(found.parent, children[-1]) if children else [],
        "hero": children[-1]["name"] if children else "",
        "reference": found.models[0]["name"],
        "columns": [label for label, _ in _COLUMNS],
        "rows": [_row(m, found.parent) for m in found.models],
        "notes": found.notes,
        "shape": _shape(found, children),
        "searches": [searches.told(r) for r in found.searches],
        "samples": _samples(found),
        "audits": [{"name": m["name"], "steps": audit.steps(m["record"])} for m in found.models],
        "measured": [_measured(d) for d in found.documents],
        "hashes": [_hashes(m) for m in found.models],
        "charts": _charts(found),
    }


def _title(found: Collected, children: list[Entry]) -> str:
    names = ", ".join(m["name"] for m in children)
    return f"{found.parent['name']} → {names}" if found.parent else names


def _median(m: Entry, key: str) -> float | None:
    value = (m["speed"] or {}).get(key)
    return None if value is None else float(value["median"])


def _spread(m: Entry, key: str, show: Any) -> str:
    value = (m["speed"] or {}).get(key)
    return "" if value is None else f"{show(value['min'])} to {show(value['max'])}"


def _bpb(m: Entry) -> float | None:
    value: float | None = m["text"]["total"]["bits_per_byte"]
    return value


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _cards(parent: Entry | None, child: Entry) -> list[dict[str, str]]:
    """The last child in five numbers."""
    cards = []
    if parent is not None:
        share = child["size"]["parameters"] / parent["size"]["parameters"]
        cards.append(("of the parameters", words.percent(share), words.count(child["size"]["parameters"])))
        change = words.signed(_difference(_bpb(child), _bpb(parent)))
        cards.append(("bits per byte", change, f"{words.number(_bpb(parent))} → {words.number(_bpb(child))}"))
    else:
        cards.append(("parameters", words.count(child["size"]["parameters"]), ""))
        cards.append(("bits per byte", words.number(_bpb(child)), ""))
    if child["agreement"]:
        kl = f"KL {words.number(child['agreement']['kl'])} nats"
        cards.append(("same next token as the parent", words.percent(child["agreement"]["top1"], 1), kl))
    for label, key in (("decode speed", "decode_ratio"), ("peak memory", "peak_ratio")):
        if parent is not None and _median(child, key) is not None:
            cards.append((label, words.times(_median(child, key)), _spread(child, key, words.times)))
    return [{"label": a, "value": b, "small": c} for a, b, c in cards]


def _ratio(m: Entry, parent: Entry | None, key: str) -> str:
    if parent is None or m is parent or not parent["size"][key]:
        return ""
    return words.percent(m["size"][key] / parent["size"][key])


#: (column, unit) -> (entry, parent) -> (value, small print).
_COLUMNS: tuple[tuple[tuple[str, str], Any], ...] = (
    (("parameters", ""), lambda m, p: (words.count(m["size"]["parameters"]), _ratio(m, p, "parameters"))),
    (("without embedding", ""), lambda m, p: (words.count(m["size"]["non_embedding"]), _ratio(m, p, "non_embedding"))),
    (("on disk", ""), lambda m, p: (words.size(m["size"]["disk_bytes"]), _ratio(m, p, "disk_bytes"))),
    (("cache", "of a sequence"), lambda m, p: (words.size(m["size"]["cache_bytes"]), f"at {m['size']['context']:,}")),
    (("loss", "nats per token"), lambda m, p: _change(m, p, "loss")),
    (("bits per byte", ""), lambda m, p: _change(m, p, "bits_per_byte")),
    (("KL", "nats"), lambda m, p: (words.number((m["agreement"] or {}).get("kl")), _trimmed(m))),
    (("top-1", "as the parent"), lambda m, p: (words.percent((m["agreement"] or {}).get("top1"), 1), "")),
    (("prefill", "tokens/s"), lambda m, p: _speed(m, "prefill_tokens_per_s", "prefill_ratio", words.count)),
    (("decode", "tokens/s"), lambda m, p: _speed(m, "decode_tokens_per_s", "decode_ratio", words.count)),
    (("memory", "at its peak"), lambda m, p: _speed(m, "peak_bytes", "peak_ratio", words.size)),
)


def _change(m: Entry, parent: Entry | None, key: str) -> tuple[str, str]:
    value = m["text"]["total"][key]
    if parent is None or m is parent:
        return words.number(value), ""
    if key == "loss" and m["shape"].get("vocab") != parent["shape"].get("vocab"):
        return words.number(value), "own tokens"
    return words.number(value), words.signed(_difference(value, parent["text"]["total"][key]))


def _trimmed(m: Entry) -> str:
    agreement = m["agreement"] or {}
    return f"{words.percent(agreement['outside_mass'], 1)} outside" if agreement.get("trimmed") else ""


def _speed(m: Entry, rate: str, ratio: str, show: Any) -> tuple[str, str]:
    value = _median(m, rate)
    return (words.NOTHING, "") if value is None else (show(value), words.times(_median(m, ratio)))


def _row(m: Entry, parent: Entry | None) -> dict[str, Any]:
    cells = [show(m, parent) for _, show in _COLUMNS]
    return {"name": m["name"], "role": m["role"], "kind": m["model_type"], "cells": cells}


def _shape(found: Collected, children: list[Entry]) -> dict[str, Any]:
    """Axes that some child changed, and the names of those that none did."""
    before = dict(found.parent["shape"]) if found.parent else {}
    for m in children:
        for axis, size in _recorded(m["record"]).items():
            before.setdefault(axis, size)
    changed, same = [], []
    for axis, size in before.items():
        sizes = [m["shape"].get(axis) for m in children]
        cells = [{"size": s, "share": None if s is None else s / size} for s in sizes]
        if all(s in (size, None) for s in sizes):
            same.append(f"{axis} ({size:,})")
        else:
            unit = PUBLIC[axis].unit if axis in PUBLIC else ""
            changed.append({"axis": axis, "unit": unit, "before": size, "cells": cells})
    return {"models": [m["name"] for m in children], "changed": changed, "same": same, "known": bool(before)}


def _recorded(record: dict[str, Any] | None) -> dict[str, int]:
    """Sizes before the first cut that the record tells of."""
    sizes: dict[str, int] = {}
    while record:
        sizes = {axis: s["before"] for axis, s in record.get("shape", {}).items()} or sizes
        record = record.get("before")
    return sizes


def _samples(found: Collected) -> list[dict[str, Any]]:
    """Prompts of all documents, each with what every model wrote after it."""
    prompts: dict[str, dict[str, Any]] = {}
    for i, document in enumerate(found.documents):
        for j, prompt in enumerate(document["prompts"]):
            entry = prompts.setdefault(prompt["text"], {**prompt, "texts": []})
            for m in found.models:
                if m["measured"] == i and j < len(m["samples"]):
                    entry["texts"].append({"name": m["name"], "text": m["samples"][j]})
    return list(prompts.values())


def _measured(document: dict[str, Any]) -> dict[str, Any]:
    settings = document["settings"]
    how = "end to end" if settings["stride"] == settings["window"] else f"sliding by {settings['stride']} tokens"
    place = settings["place"]
    lines = [
        ("windows", f"{settings['window']:,} tokens, {how}"),
        ("run in", f"{place['dtype']} on {place['device']}{', fast kernels' if place['fast_kernels'] else ''}"),
    ]
    asked = settings.get("reduction")
    if asked and asked["flops"] is not None:
        prompt = settings["window"] - settings["stride"]
        how = (
            f"{asked['method']}, {asked['flops']:.0%} of a prompt's operations; {prompt:,} tokens before what is scored"
        )
        lines.append(("reduced prompts", how))
    speed = settings["speed"]
    if speed:
        how = f"{speed['batch']} × {speed['prompt']} tokens in, {speed['new']} out, {speed['rounds']} rounds in turns"
        threads = {m["speed"]["threads"] for m in document["models"] if m["speed"]}
        lines.append(("speed", f"{how}, threads: {', '.join(map(str, sorted(threads)))}, seed {speed['seed']}"))
    lines += [(f"text {t['name']}", f"{t['bytes']:,} bytes, sha256 {t['sha256']}") for t in document["text"]]
    return {"lines": lines, "versions": sorted(document["versions"].items())}


def _hashes(m: Entry) -> dict[str, Any]:
    lines = [("source", m["source"]), ("config.json, canonical", f"sha256 {m['config_sha256']}")]
    lines += [(name, f"sha256 {digest}") for name, digest in sorted(m["sha256"].items())]
    record = m["record"]
    while record:
        settings = record.get("settings")
        if isinstance(settings, dict):
            said = ", ".join(f"{k} {v}" for k, v in settings.items() if not isinstance(v, dict | list))
            lines.append((f"step {record.get('step', '')}", said))
        for name, digest in (record.get("parent") or {}).get("sha256", {}).items():
            lines.append((f"cut from {name}", f"sha256 {digest}"))
        if record.get("versions"):
            lines.append(("versions", ", ".join(f"{k} {v}" for k, v in record["versions"].items())))
        record = record.get("before")
    return {"name": m["name"], "lines": lines}


def _charts(found: Collected) -> dict[str, Any]:
    """Data of the interactive charts; embedded as JSON."""
    points = []
    for m in found.models:
        agreement, total = m["agreement"] or {}, m["text"]["total"]
        is_parent = m["role"] == "parent"
        top1 = 1.0 if is_parent else agreement.get("top1")
        values = {
            **{k: m["size"][k] for k in ("parameters", "non_embedding", "disk_bytes", "cache_bytes")},
            **{k: total[k] for k in ("bits_per_byte", "loss", "perplexity")},
            "kl": 0.0 if is_parent else agreement.get("kl"),
            "disagreement": None if top1 is None else 1 - top1,
        }
        speeds = ("prefill_ratio", "decode_ratio", "prefill_tokens_per_s", "decode_tokens_per_s", "peak_bytes")
        ranges = {k: (m["speed"] or {}).get(k) for k in speeds}
        points.append({"name": m["name"], "role": m["role"], "values": values, "ranges": ranges})
    shape = found.parent["shape"] if found.parent else {}
    kept: dict[str, list[dict[str, Any]]] = {}
    for m in found.models:
        for axis, n in m["shape"].items():
            if axis in shape and n != shape[axis]:
                kept.setdefault(axis, []).append({"name": m["name"], "share": n / shape[axis]})
    reference = found.models[0]["name"]
    return {
        "reference": reference,
        "points": points,
        "healing": found.healing,
        "importance": found.importance,
        "kept": kept,
        "searches": [searches.chart(r) for r in found.searches],
    }


__all__ = ["view"]
