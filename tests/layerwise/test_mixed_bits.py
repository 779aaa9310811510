"""Bits shared out by errors: the best of all choices on a tiny problem, within the bytes of the uniform one."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from secateur.errors import UsageError
from secateur.layerwise.quantize import rtn
from secateur.layerwise.quantize.mixed import WIDTHS, Curve, _between, curves, shared_out
from secateur.model import open_model
from tests.cli.models import Pool
from tests.export.conftest import pool as pool
from tests.layerwise.made import problem


def curve(rows: int, width: int, seed: int) -> Curve:
    made = problem(rows, width, seed=seed)
    found = {b: rtn.solve(made, rtn.Settings(bits=b, group=16)) for b in WIDTHS}
    return {b: (s.nbytes, s.error / made.energy) for b, s in found.items()}


@pytest.mark.parametrize("solver", ["dynamic", "integer", "exhaustive"])
@pytest.mark.parametrize("bits", [3, 3.5, 4.2])
def test_against_every_choice(solver: str, bits: float) -> None:
    found = {f"linear {i}": curve(8 * (i + 1), 32, i) for i in range(4)}
    budget = sum(_between(c, bits) for c in found.values())
    best = min(
        sum(c[w][1] for c, w in zip(found.values(), choice, strict=True))
        for choice in itertools.product(WIDTHS, repeat=4)
        if sum(c[w][0] for c, w in zip(found.values(), choice, strict=True)) <= budget
    )
    chosen = shared_out(found, bits, solver)
    assert sum(found[n][w][0] for n, w in chosen.items()) <= budget
    assert sum(found[n][w][1] for n, w in chosen.items()) == pytest.approx(best, rel=1e-6)


def test_no_worse_than_the_same_everywhere() -> None:
    found = {f"linear {i}": curve(16, 32 * (i + 1), i) for i in range(3)}
    chosen = shared_out(found, 4, "dynamic")
    assert sum(found[n][w][1] for n, w in chosen.items()) <= sum(c[4][1] for c in found.values()) + 1e-12


@pytest.mark.parametrize(("bits", "solver"), [(1.5, "dynamic"), (9, "dynamic"), (4, "best")])
def test_what_cannot_be_shared_out(bits: float, solver: str) -> None:
    with pytest.raises(UsageError):
        shared_out({"a": curve(4, 16, 0)}, bits, solver)


def test_curves_of_a_model(pool: Pool, tmp_path: Path) -> None:
    """Every linear of a hybrid, errors falling and bytes rising with the bits."""
    with open_model(pool.get("nemotron_h")) as model:
        windows = torch.randint(0, model.anatomy.sizes["v"], (4, 16), generator=torch.Generator().manual_seed(0))
        found = curves(model, windows, rtn.Settings(group=0), {"dtype": torch.float32, "device": "cpu"}, 2)
    assert len(found) >= 4
    for c in found.values():
        nbytes, errors = zip(*c.values(), strict=True)
        assert list(nbytes) == sorted(nbytes) and errors[-1] < errors[0]
