"""The page as a file: self-contained, small, and nothing in it but what we wrote."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from secateur.cli import run
from secateur.reporting import collect, render, write
from secateur.reporting.page import embed
from tests.evaluate.models import TEXT, hybrid

from .documents import document, entry, full, importance, record

HOSTILE = [
    "<script>window.pwned=1</script>", '"><img src=x onerror="window.pwned=1">',
    "</script><script>window.pwned=1</script>", "{{ 7 * 7 }}", "<!--", "]]>",
    "' onmouseover='window.pwned=1", "a\u2028b\x00c", "half \ud800 pair",
]  # fmt: skip


class Elements(HTMLParser):
    """Tags with their attributes, and the text of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data


def parsed(page: str) -> Elements:
    found = Elements()
    found.feed(page)
    return found


def page_of(tmp_path: Path, *documents: Any) -> str:
    paths = []
    for i, d in enumerate(documents):
        paths.append(tmp_path / f"{i}.json")
        paths[-1].write_text(json.dumps(d))
    return render(collect(paths))


def hostile_document() -> dict[str, Any]:
    """Every string a stranger can choose is an attack."""
    bad = iter(HOSTILE * 40)
    tensors = {next(bad) + str(i): {"action": next(bad), "why": next(bad), "name": next(bad)} for i in range(12)}
    history = {
        "step": next(bad), "settings": {next(bad): next(bad)}, "versions": {next(bad): next(bad)},
        "parent": {"sha256": {next(bad): next(bad)}},
        "audit": {"summary": {next(bad): 1}, "tensors": tensors, "files": {next(bad): next(bad)}},
    }  # fmt: skip
    curves = importance(criterion=next(bad))
    for curve in curves["curves"]:
        curve["axis"], curve["scope"] = next(bad), next(bad)
    children = [
        entry(name, 0.3 + i / 20, 3.0 + i, record=history, importance=curves, samples=[name], source=name,
              model_type=name, healing=[{"step": 1, "tokens": 1, name: 2.0}, {"step": 2, "tokens": 2, name: 1.0}],
              shape={name: 3, "hidden": 4}, sha256={name: name}, why_no_agreement=name)
        for i, name in enumerate(HOSTILE)
    ]  # fmt: skip
    made = document(entry("parent", 1, 2.0, role="parent", shape=dict.fromkeys(HOSTILE, 5) | {"hidden": 8}), *children)
    made["text"] = [{"name": n, "bytes": 1, "sha256": n} for n in HOSTILE]
    made["prompts"] = [{"text": HOSTILE[0], "truth": HOSTILE[1]}]
    made["versions"] = {n: n for n in HOSTILE}
    return made


def test_no_string_becomes_markup(tmp_path: Path) -> None:
    clean, attacked = parsed(page_of(tmp_path, full())), parsed(page_of(tmp_path, hostile_document()))
    assert {t for t, _ in attacked.tags} <= {t for t, _ in clean.tags} | {"small"}
    assert sum(t == "script" for t, _ in attacked.tags) == 2
    assert not [a for _, attributes in attacked.tags for a in attributes if a.startswith("on")]
    names = {a for _, attributes in attacked.tags for a in attributes}
    assert names <= {a for _, attributes in clean.tags for a in attributes}
    assert json.loads(attacked.scripts[0])["points"][1]["name"] == HOSTILE[0]


def test_only_our_script_may_run(tmp_path: Path) -> None:
    found = parsed(page_of(tmp_path, full()))
    policy = next(
        a["content"] for t, a in found.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    digest = base64.b64encode(hashlib.sha256(found.scripts[1].encode()).digest()).decode()
    assert policy is not None and f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_nothing_is_fetched_and_the_page_is_small(tmp_path: Path) -> None:
    page = page_of(tmp_path, full())
    found = parsed(page)
    links = [a.get(key) or "" for _, a in found.tags for key in ("src", "href", "srcset", "action", "data")]
    assert all(link in ("", "data:,") or link.startswith("#") for link in links)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", page)
    bare = len(page_of(tmp_path, document(entry("a", 0.5, 3.0, role="model"))).encode())
    assert bare < 100_000


def test_a_large_audit_stays_small(tmp_path: Path) -> None:
    """48 layers of 128 experts with three tensors each: 18,432 names in a few rows."""
    tensors = {
        f"model.layers.{i}.mlp.experts.{j}.{k}.weight": {"action": "cut", "shape": [512, 2048]}
        for i in range(48) for j in range(128) for k in ("up", "gate", "down")
    }  # fmt: skip
    big = record() | {"before": None, "audit": {"summary": {"cut": len(tensors)}, "tensors": tensors, "files": {}}}
    assert len(page_of(tmp_path, document(entry("a", 0.5, 3.0, record=big)))) < 200_000


def test_missing_pieces_are_said_in_words(tmp_path: Path) -> None:
    bare = document(entry("a", 0.5, 3.0, role="model", speed=False, agreement=None, samples=[]), speed=False)
    bare["prompts"] = []
    page = page_of(tmp_path, bare)
    for said in ("No samples were written", "no record of any step", "Neither a parent nor a record"):
        assert said in page


def test_json_in_the_page_means_nothing_to_html() -> None:
    for text in HOSTILE:
        assert not set("<>&") & set(embed({text: [text]}))
        assert json.loads(embed({text: [text]})) == {text: [text]}


def test_the_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(full()))
    found = collect([tmp_path / "r.json"])
    out = tmp_path / "report.html"
    assert write(found, out) == out.stat().st_size
    with pytest.raises(Exception, match="nowhere"):
        write(found, tmp_path / "nowhere" / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["r.json", "report.html"] or len(list(tmp_path.iterdir())) == 2


def test_the_command_measures_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parent, child = hybrid(tmp_path / "parent"), hybrid(tmp_path / "<script>", seed=1)
    (tmp_path / "held-out.txt").write_text(TEXT, encoding="utf-8")
    out = tmp_path / "report.html"
    argv = ["report", str(parent), str(child), "--text", str(tmp_path / "held-out.txt"), "--window", "64"]
    assert run([*argv, "--samples", "1", "--out", str(out)]) == 0, capsys.readouterr().err
    page = out.read_text()
    assert "&lt;script&gt;" in page and sum(t == "script" for t, _ in parsed(page).tags) == 2
    assert run(["report", str(parent), "--out", str(out)]) == 2
    assert "--text" in capsys.readouterr().err
    assert run([*argv, "--out", str(tmp_path / "page.pdf")]) == 2
