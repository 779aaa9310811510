"""``secateur search``: a plan and a record come out, an interrupted search goes on, bad input ends in a message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import secateur as sc

from .command import done, refused
from .models import CORPUS, Pool

SMALL = (
    "--samples", 3, "--lessons", 4, "--length", 12, "--batch", 3, "--initial", 2, "--generations", 1, "--offspring", 2,
    "--tokens", "12,36", "--finalists", 2, "--heal", "48",
)  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(CORPUS * 40))
    return path


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_a_plan_and_a_record_come_out(pool: Pool, text: Path, tmp_path: Path) -> None:
    model, plan = pool.with_tokenizer, tmp_path / "plan.json"
    command = ("search", model, "--params", "70%", "--text", text, "--out", plan, *SMALL)
    said = done(*command)
    assert "Kendall tau" in said.out and "of the limit" in said.out and "best so far" in said.err
    record = read(tmp_path / "plan.search.json")
    limit = record["limits"][0]["amount"]
    assert record["winner"]["costs"]["params"] <= limit and all(p["costs"]["params"] <= limit for p in record["points"])
    assert {p["stage"] for p in record["points"]} == {"generations", "zero-shot", "healed"}
    assert record["winner"]["stage"]["heal"] == 48
    made = read(plan)
    assert made["after"]["parameters"] == record["winner"]["costs"]["params"]

    again = done(*command)  # everything is in the journal
    assert read(plan) == made
    assert [p["kl"] for p in read(tmp_path / "plan.search.json")["points"]] == [p["kl"] for p in record["points"]]
    assert again.out == said.out, "the same search, and the time that it took"

    stats = tmp_path / "plan.work" / "stats.safetensors"
    done("prune", model, "--plan", plan, "--stats", stats, "--out", tmp_path / "child")
    assert read(tmp_path / "child" / "secateur.json")["cost"]["after"]["parameters"] == made["after"]["parameters"]


def test_a_latency_is_measured_once_and_kept(pool: Pool, text: Path, tmp_path: Path) -> None:
    table = tmp_path / "this-machine.json"
    command = (
        "search", pool.with_tokenizer, "--latency", "50x", "--cache", "90%", "--context", 16,
        "--axes", "ffn,kv_heads", "--table", table, "--text", text, "--strategy", "uniform",
        "--out", tmp_path / "plan.json", *SMALL,
    )  # fmt: skip
    done(*command, "--keep-depth")
    measured, record = table.read_bytes(), read(tmp_path / "plan.search.json")
    assert [limit["resource"] for limit in record["limits"]] == ["cache", "latency"]
    assert record["winner"]["costs"]["latency"] <= record["limits"][1]["amount"]
    done(*command, "--keep-depth", "--restart")
    assert table.read_bytes() == measured
    refused(*command, "--sequences", 2, "--restart", says="measured elsewhere")


def test_the_same_in_python(pool: Pool, text: Path, tmp_path: Path) -> None:
    found = sc.search(
        pool.with_tokenizer, text, strategy="uniform", params="70%", samples=3, lessons=0, length=12,
        effort={"tokens": (12,), "heal": 0}, out=tmp_path / "plan.json",
    )  # fmt: skip
    assert found.plan.after.parameters <= 0.7 * found.plan.before.parameters
    assert read(tmp_path / "plan.json") == found.plan.to_json()
    with pytest.raises(sc.SecateurError, match="strategy 'best' is unknown"):
        sc.search(pool.with_tokenizer, text, strategy="best", params="70%")


def test_what_cannot_be_searched_is_refused(pool: Pool, text: Path, tmp_path: Path) -> None:
    here = ("search", pool.with_tokenizer, "--text", text, "--out", tmp_path / "plan.json")
    refused(*here, says="budget empty: expected one or more of params")
    refused(*here, "--params", "lots", says="is no amount")
    refused(*here, "--params", "60%", "--budget", "soon", says="--budget 'soon' is no length of time; write 30min")
    refused(*here, "--params", "60%", "--strategy", "best", says="expected one of evolutionary, minitron")
    refused(*here, "--params", "60%", "--lessons", 0, says="needs text to distil on")
    refused(*here, "--params", "60%", "--tokens", "2k,many", says="no number of tokens")
    refused(*here, "--params", "60%", "--axes", "ffn,width", *SMALL, says="there is no axis called 'width'")
    refused(*here, "--params", "0.1%", *SMALL, says="no shape fits the budget")
    refused(*here, "--params", "60%", "--samples", 10**6, says="text")
    refused(*here[:-1], tmp_path / "missing" / "plan.json", "--params", "60%", says="its folder does not exist")
    assert not (tmp_path / "plan.json").exists()
    refused(*here, "--params", "60%", *SMALL, "--seed", 1, says="another search: windows was")
