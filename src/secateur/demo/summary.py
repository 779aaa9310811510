"""What the demo's evaluation says in one table and a few sentences: what was lost, what came back, what it buys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """A quantity of every model, ready to print."""

    label: str
    cells: tuple[str, ...]


def table(document: Mapping[str, Any]) -> tuple[tuple[str, ...], list[Row]]:
    """(names of the models, the parent first; rows) of a document by `secateur eval`. Unmeasured rows are left out."""
    models: Sequence[Entry] = document["models"]
    rows = [Row(label, tuple(show(m, models[0]) for m in models)) for label, show in _ROWS]
    return tuple(m["name"] for m in models), [r for r in rows if any(r.cells)]


def sentences(document: Mapping[str, Any]) -> list[str]:
    """What the cut cost, what each later model won back, and how much smaller and faster the last one is."""
    parent, cut, *later = document["models"]
    lost = _bits(cut) - _bits(parent)
    said = [f"Lost: {cut['name']} reads the held-out text with {lost:+.3f} bits per byte against the {parent['name']}."]
    before = cut
    for m in later:
        won = _bits(before) - _bits(m)
        share = f" ({won / lost:.0%} of what was lost)" if lost > 0 else ""
        said.append(f"Back:  {m['name']} wins {won:+.3f}{share}.")
        before = m
    left = _bits(before) - _bits(parent)
    said.append(f"Left:  {left:+.3f} bits per byte, {before['agreement']['top1']:.1%} of next tokens as the parent's.")
    said.append(f"Price: {_share(before, parent, 'non_embedding')} of the parameters outside embedding and head, "
                f"{_share(before, parent, 'disk_bytes')} of the bytes{_faster(before)}.")  # fmt: skip
    return said


def _faster(m: Entry) -> str:
    speed = m["speed"]
    if speed is None:
        return ""
    prefill, decode = (_spread(speed[f"{kind}_ratio"]) for kind in ("prefill", "decode"))
    return f"; prefill {prefill}, decode {decode} the parent's speed"


def _bits(m: Entry) -> float:
    return float(m["text"]["total"]["bits_per_byte"])


def _share(m: Entry, parent: Entry, key: str) -> str:
    return f"{m['size'][key] / parent['size'][key]:.1%}"


def _spread(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f}x ({ratio['min']:.2f} to {ratio['max']:.2f})"


def _text(key: str, digits: int) -> Callable[[Entry, Entry], str]:
    return lambda m, _: f"{m['text']['total'][key]:.{digits}f}"


def _agreement(key: str, form: str) -> Callable[[Entry, Entry], str]:
    return lambda m, _: form.format(m["agreement"][key]) if m["agreement"] else ""


def _speed(key: str, form: str) -> Callable[[Entry, Entry], str]:
    return lambda m, _: form.format(m["speed"][key]["median"]) if m["speed"] else ""


_ROWS: tuple[tuple[str, Callable[[Entry, Entry], str]], ...] = (
    ("loss, nats per token", _text("loss", 4)),
    ("bits per byte", _text("bits_per_byte", 4)),
    ("   against the parent", lambda m, p: "" if m is p else f"{_bits(m) - _bits(p):+.4f}"),
    ("KL to the parent, nats", _agreement("kl", "{:.4f}")),
    ("next token as the parent", _agreement("top1", "{:.1%}")),
    ("parameters", lambda m, p: f"{m['size']['parameters']:,}"),
    ("   without embedding", lambda m, p: f"{m['size']['non_embedding']:,}"),
    ("   of the parent's", lambda m, p: _share(m, p, "non_embedding")),
    ("bytes on disk", lambda m, p: f"{m['size']['disk_bytes']:,}"),
    ("prefill tokens/s", _speed("prefill_tokens_per_s", "{:,.0f}")),
    ("   of the parent's", _speed("prefill_ratio", "{:.2f}x")),
    ("decode tokens/s", _speed("decode_tokens_per_s", "{:,.0f}")),
    ("   of the parent's", _speed("decode_ratio", "{:.2f}x")),
    ("peak memory", _speed("peak_ratio", "{:.2f}x")),
)

__all__ = ["Row", "sentences", "table"]
