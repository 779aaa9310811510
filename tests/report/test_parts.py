"""What the page says, before it is laid out."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from secateur.errors import UsageError
from secateur.reporting import Collected, audit, collect, words
from secateur.reporting.view import view

from .documents import document, entry, full, healing, record


def saved(tmp_path: Path, *documents: object) -> list[Path]:
    paths = []
    for i, d in enumerate(documents):
        paths.append(tmp_path / f"r{i}.json")
        paths[-1].write_text(json.dumps(d))
    return paths


@pytest.mark.parametrize(
    ("n", "said"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (12_345, "12.3 k"), (2_647_540, "2.65 M"), (8e9, "8.00 B"), (None, "–")],
)
def test_counts(n: float | None, said: str) -> None:
    assert words.count(n) == said


def test_signs_are_always_said() -> None:
    assert (words.signed(0.5), words.signed(-0.5), words.signed(None)) == ("+0.500", "−0.500", "–")


def test_runs_of_indices_name_each_tensor_once() -> None:
    assert audit.ranges([(1,), (3,), (2,), (7,)]) == "1-3;7"
    assert audit.ranges([(0, 0), (0, 1), (1, 0), (0, 3)]) == "0,0-1;0,3;1,0"
    assert audit.ranges([()]) == ""
    everything = list(itertools.product(range(3), range(5)))
    assert audit.ranges(everything) == "0,0-4;1,0-4;2,0-4"


def test_the_audit_loses_no_tensor_and_no_step() -> None:
    prune, distill = audit.steps(record())
    assert (prune["step"], distill["step"]) == ("prune", "distill")
    assert sum(r["count"] for r in prune["rows"]) == 7
    rows = {r["pattern"]: r for r in prune["rows"]}
    assert rows["model.layers.*.norm.weight"]["detail"] == "times 1.1 to 1.3"
    assert rows["model.layers.*.mlp.up.weight"] == {
        "pattern": "model.layers.*.mlp.up.weight", "index": "0-2", "count": 3, "action": "cut",
        "shape": "384 × 96", "detail": "",
    }  # fmt: skip
    assert "no layout covers it" in rows["model.mtp.weight"]["detail"]
    assert audit.steps(None) == []


def test_models_of_several_files_are_merged(tmp_path: Path) -> None:
    parent = entry("parent", 1.0, 3.0, role="parent")
    first = document(parent | {"speed": None}, entry("a", 0.5, 3.4))
    second = document(parent, entry("a", 0.4, 3.5, config_sha256="other"))
    found = collect(saved(tmp_path, first, second))
    assert [m["name"] for m in found.models] == ["parent", "a", "a (2)"]
    assert found.parent is not None and found.parent["speed"] is not None
    assert any("several runs" in n for n in found.notes)


def test_what_does_not_compare_is_said(tmp_path: Path) -> None:
    stranger = entry("b", 0.5, 3.4, agreement=None, why_no_agreement="300 tokens against 320")
    found = collect(saved(tmp_path, document(entry("a", 0.5, 3.4)), document(stranger, text="other", window=8)))
    said = " ".join(found.notes)
    assert "different texts" in said and "different windows" in said and "300 tokens" in said


def test_curves_may_lie_elsewhere(tmp_path: Path) -> None:
    run = tmp_path / "run7"
    run.mkdir()
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in healing(5)))
    found = collect(saved(tmp_path, full()), metrics=[run / "metrics.jsonl"])
    assert set(found.healing) == {"healed", "run7"}
    with pytest.raises(UsageError, match="no such file"):
        collect(saved(tmp_path, full()), importance=[tmp_path / "importance.json"])


def test_nothing_to_show_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to report"):
        collect([])
    with pytest.raises(UsageError, match="none is given"):
        collect([tmp_path])


def test_shape_shows_what_changed(tmp_path: Path) -> None:
    shape = view(collect(saved(tmp_path, full())))["shape"]
    assert [row["axis"] for row in shape["changed"]] == ["hidden", "ffn"]
    assert shape["changed"][0]["cells"][2] == {"size": 96, "share": 0.5}
    assert shape["same"] == ["vocab (4,096)", "layers (11)"]


def test_a_trimmed_child_has_no_loss_to_subtract(tmp_path: Path) -> None:
    trimmed = entry("trim", 0.9, 3.1, shape={"vocab": 3072})
    trimmed["agreement"] |= {"trimmed": True, "outside_mass": 0.044}
    shown = view(collect(saved(tmp_path, document(entry("parent", 1.0, 3.0, role="parent"), trimmed))))
    cells = dict(zip([label for label, _ in shown["columns"]], shown["rows"][1]["cells"], strict=True))
    assert cells["loss"] == ("3.100", "own tokens")
    assert cells["KL"][1] == "4.4% outside"
    assert cells["bits per byte"][1].startswith("+")


def test_a_lone_child_is_compared_with_its_record(tmp_path: Path) -> None:
    shown = view(collect(saved(tmp_path, document(entry("healed", 0.5, 3.3, role="model", record=record())))))
    assert [(r["axis"], r["before"]) for r in shown["shape"]["changed"]] == [("hidden", 192)]
    assert shown["cards"][0]["value"] == "500 k"


def test_the_headline_is_the_last_child(tmp_path: Path) -> None:
    shown = view(collect(saved(tmp_path, full())))
    assert shown["hero"] == "healed"
    assert [c["value"] for c in shown["cards"]] == ["50%", "+0.125", "50.0%", "2.00×", "0.50×"]
    assert isinstance(collect(saved(tmp_path, full())), Collected)
