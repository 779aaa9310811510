"""Elimination by what was told before, against whole matrices."""

from __future__ import annotations

import pytest
import torch

from secateur.layerwise.elimination import Elimination, eliminated_reference, pulled, rows_at_a_time
from secateur.layerwise.gram import Gram, spd_inverse
from tests.layerwise.made import inputs


@pytest.mark.parametrize("size", [1, 4])
def test_tiles_and_pulls_are_those_of_the_whole_matrix(size: int) -> None:
    rows, d = 5, 24
    inverse = spd_inverse(Gram.of(inputs(100, d)).damped())
    fast, generator = Elimination(inverse, rows, 3, size), torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(d // size, generator=generator)[:3] for _ in range(rows)])
    change = torch.randn(rows, 2, size, generator=generator, dtype=torch.float64)
    for step in range(3):
        found = pulled(change, *fast.lose(order[:, step]))
        for i in range(rows):
            lost = [t * size + k for t in order[i, :step].tolist() for k in range(size)]
            before = eliminated_reference(inverse, torch.tensor(lost, dtype=torch.long))
            s = order[i, step] * size + torch.arange(size)
            want = change[i] @ torch.linalg.solve(before[s][:, s], before[s])
            assert torch.allclose(found[i], want, atol=1e-10, rtol=0)
            after = eliminated_reference(inverse, torch.tensor([*lost, *s.tolist()]))
            for t in set(range(d // size)) - set(order[i, : step + 1].tolist()):
                inside = slice(t * size, (t + 1) * size)
                assert torch.allclose(fast.tiles[i, t], after[inside, inside], atol=1e-12, rtol=0)


def test_rows_go_in_pieces_of_one_at_least() -> None:
    assert rows_at_a_time(4, 0) > rows_at_a_time(4, 4) > 1
    assert rows_at_a_time(1 << 20, 1 << 20) == 1
