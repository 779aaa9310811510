"""Amounts as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur.errors import BudgetError, UsageError
from secateur.model import Model, open_model
from secateur.search.budget import make_budget, parse_limit
from secateur.search.resources import RESOURCES, Resource, Workload
from tests.contract.harness import Parent

TIME = Resource("latency", "seconds", "of one token", lambda model, workload: lambda sizes, layers: sizes["d"] * 1e-3)


@pytest.fixture
def model(parents: dict[str, Parent]) -> Model:
    return open_model(parents["nemotron_h"].folder)


@pytest.mark.parametrize(
    ("text", "name", "amount"),
    [
        ("2GiB", "cache", 2 * 2**30), ("900MB", "bytes", 900 * 10**6), ("350M", "params", 350 * 10**6),
        ("60%", "params", 600), ("0.6x", "params", 600), ("0.6x", "bytes", 600), ("4B", "params", 4 * 10**9),
        ("1.5G", "bytes", None), ("12", "cache", 12), ("2 kib", "cache", 2048), ("1e3", "params", 1000),
    ],
)  # fmt: skip
def test_amounts(text: str, name: str, amount: int | None) -> None:
    if amount is None:
        with pytest.raises(UsageError, match=f"--{name}"):
            parse_limit(text, 1000, RESOURCES[name])
    else:
        assert parse_limit(text, 1000, RESOURCES[name]) == amount


@pytest.mark.parametrize(
    ("text", "amount"), [("12ms", 12e-3), ("1.5s", 1.5), ("250us", 250e-6), ("0.6x", 1.2), ("60%", 1.2), ("3 MS", 3e-3)]
)
def test_times(text: str, amount: float) -> None:
    assert parse_limit(text, 2.0, TIME) == pytest.approx(amount)


@pytest.mark.parametrize("text", ["", "12", "fast", "-3ms", "0s", "0x", "nan", "%", "1e999s", "5 minutes"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--latency"):
        parse_limit(text, 2.0, TIME)


@pytest.mark.parametrize("text", ["", "much", "0", "0%", "0x", "-3GiB", "1e999"])
def test_what_is_no_cache_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--cache"):
        parse_limit(text, 2.0, RESOURCES["cache"])


def test_several_limits_hold_together(model: Model) -> None:
    anatomy, every = model.anatomy, frozenset(range(model.anatomy.n_layers))
    work = Workload(context=100, batch=3)
    budget = make_budget(model, {"params": "50%", "cache": "0.9x", "latency": "0.5x"}, work, measured={"latency": TIME})
    whole = budget.costs(anatomy.sizes, every)
    assert whole == {limit.resource.name: limit.whole for limit in budget.limits}
    assert budget.used(anatomy.sizes, every) == pytest.approx(2, rel=1e-3) and not budget.fits(anatomy.sizes, every)
    exact = make_budget(model, {n: int(whole[n]) for n in ("params", "cache")}, work)
    assert exact.fits(anatomy.sizes, every) and exact.used(anatomy.sizes, every) == 1
    for name in ("params", "cache"):
        less = make_budget(model, {n: int(whole[n]) - (n == name) for n in ("params", "cache")}, work)
        assert not less.fits(anatomy.sizes, every) and less.used(anatomy.sizes, every) > 1
    message = str(less.missed(whole, "hidden=40"))
    assert isinstance(less.missed(whole, ""), BudgetError) and f"{int(whole['cache']):,} bytes of" in message


def test_names_are_checked(model: Model) -> None:
    with pytest.raises(UsageError, match=r"'latency'.*known are params, bytes, cache") as caught:
        make_budget(model, {"latency": "12ms"})
    assert "table" in str(caught.value.hint)
    with pytest.raises(UsageError, match="at least one"):
        make_budget(model, {})
    with pytest.raises(UsageError, match="above zero"):
        make_budget(model, {"params": 0})
    with pytest.raises(UsageError, match="at least one token"):
        Workload(context=0)


def test_a_lone_config_is_enough(parents: dict[str, Parent]) -> None:
    file = Path(parents["nemotron_h"].folder) / "config.json"
    budget = make_budget(open_model(file), {"cache": "2GiB"}, Workload(context=8192))
    assert 0 < budget.limits[0].whole < 2 * 2**30
