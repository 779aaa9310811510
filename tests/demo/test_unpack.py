"""The demo's folder: made whole, made once, never over somebody else's files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from secateur.demo.unpack import DATA, RECIPE, VARIANTS, unpack
from secateur.errors import UsageError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A default of a few bytes."""
    folder = tmp_path / "data"
    (folder / "text").mkdir(parents=True)
    (folder / "text" / "a.txt").write_text("a")
    for variant, name in VARIANTS.items():
        (folder / name).write_text(f"# {variant}\n")
    return folder


def test_a_second_time_changes_nothing(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "demo"
    recipe = unpack(folder, data=data)
    assert recipe == folder / RECIPE and recipe.read_text() == "# demo\n"
    assert sorted(p.name for p in folder.rglob("*")) == ["a.txt", RECIPE, "text"]
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    (folder / "plan.json").write_text("a result")
    unpack(folder, data=data)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (folder / "plan.json").read_text() == "a result"


def test_an_interrupted_one_is_finished(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    unpack(folder, data=data)
    (folder / "text" / "a.txt").rename(folder / "text" / ".a.txt.part")
    unpack(folder, data=data)
    assert [p.name for p in (folder / "text").iterdir()] == ["a.txt"]


def test_variants_may_follow_each_other(data: Path, tmp_path: Path) -> None:
    for variant in ("quick", "demo", "quick"):
        assert unpack(tmp_path / "demo", variant, data).read_text() == f"# {variant}\n"


def test_refuses_what_it_did_not_write(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    unpack(folder, data=data)
    (folder / "text" / "a.txt").write_text("b")
    with pytest.raises(UsageError, match=r"a\.txt: was changed"):
        unpack(folder, data=data)
    (folder / RECIPE).write_text("# mine\n")
    with pytest.raises(UsageError, match="not the demo's own recipe") as refused:
        unpack(folder, data=data)
    assert "secateur run" in (refused.value.hint or "")
    assert (folder / RECIPE).read_text() == "# mine\n"
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="no folder of this demo"):
        unpack(folder, data=data)
    assert [p.name for p in folder.iterdir()] == ["thesis.txt"]
    with pytest.raises(UsageError, match="is a file"):
        unpack(folder / "thesis.txt", data=data)


def test_embedded_default_travels_whole(tmp_path: Path) -> None:
    folder = unpack(tmp_path / "demo").parent
    names = {str(p.relative_to(DATA)) for p in DATA.rglob("*") if p.is_file()} - set(VARIANTS.values())
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == names | {RECIPE}
    assert {"parent/model.safetensors", "parent/README.md", "parent/LICENSE", "SOURCES.md"} <= names
