"""SSM state statistics against the plain recursion, and scores against the error of really removing an entry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from secateur.anatomy import layout as lo
from secateur.calibration import states
from secateur.calibration.states_reference import energies_reference
from secateur.calibration.stats import Stats
from secateur.importance import MEASURED
from secateur.importance.base import keep_best
from secateur.kernels.reference import ssd_reference
from secateur.pruning.cut import Cut
from secateur.pruning.shape import resolve
from tests.contract.harness import Parent, cut_pair, distance, logits, write

from .plain import measure

WHAT = ("energy", "control", "observe")


def _random(t: int, h: int = 4, g: int = 2, p: int = 3, n: int = 5, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """x, dt, A, B, C with forgetful and long-lived heads."""
    r = torch.Generator().manual_seed(seed)
    shapes = (2, t, h, p), (2, t, g, n), (2, t, g, n)
    normal = [torch.randn(*shape, generator=r, dtype=torch.float64) for shape in shapes]
    dt = torch.rand(2, t, h, generator=r, dtype=torch.float64)
    return normal[0], dt, -torch.tensor([0.01, 0.3, 2.0, 30.0], dtype=torch.float64)[:h], normal[1], normal[2]


@pytest.mark.parametrize("length", [1, 7, 16, 45])
@pytest.mark.parametrize("chunk", [16, 64])
def test_head_energies_equal_the_recursion(length: int, chunk: int) -> None:
    x, dt, A, B, C = _random(length)
    got = states.head_energies(x, dt, A, B, C, chunk)
    B, C = (v.repeat_interleave(2, 2) for v in (B, C))
    decay = torch.exp(dt * A)[..., None].expand(*B.shape)
    want = energies_reference(dt[..., None] * x, decay, B, C)
    for what in WHAT:
        assert torch.allclose(getattr(got, what), getattr(want, what), rtol=1e-9, atol=1e-12), what
    single = states.head_energies(*(v.float() for v in (x, dt, A)), *(v.float() for v in _random(length)[3:]), chunk)
    for what in WHAT:
        assert torch.allclose(getattr(single, what), getattr(want, what), rtol=1e-4, atol=1e-5), what


@pytest.mark.parametrize("length", [1, 7, 33])
def test_channel_energies_equal_the_recursion(length: int) -> None:
    r = torch.Generator().manual_seed(1)
    x, B, C = (torch.randn(2, length, w, generator=r, dtype=torch.float64) for w in (6, 4, 4))
    dt = torch.rand(2, length, 6, generator=r, dtype=torch.float64)
    A = -torch.rand(6, 4, generator=r, dtype=torch.float64) * 3
    got = states.channel_energies(x, dt, A, B, C)
    wide = [v[:, :, None].expand(2, length, 6, 4) for v in (B, C)]
    want = energies_reference((dt * x)[..., None], torch.exp(dt[..., None] * A), *wide)
    for what in WHAT:
        assert torch.allclose(getattr(got, what), getattr(want, what), rtol=1e-9, atol=1e-12), what


def test_energy_is_the_error_of_removing_one_entry() -> None:
    """Exactly: entry n's share of the output is h_t[:, n] C_t[n], whatever the others do."""
    x, dt, A, B, C = _random(40)
    y, _ = ssd_reference(x, dt, A, B, C)
    energies = states.head_energies(x, dt, A, B, C).energy
    for n in range(B.shape[-1]):
        rest = [i for i in range(B.shape[-1]) if i != n]
        without, _ = ssd_reference(x, dt, A, B[..., rest], C[..., rest])
        assert torch.allclose((y - without).square().sum((0, 1, 3)), energies[:, n])


def test_energies_add_up_when_entries_write_at_different_times() -> None:
    """Two entries whose contributions never overlap: removing both costs the sum."""
    x, dt, A, B, C = _random(40)
    C = C.clone()
    C[:, :20, :, 0], C[:, 20:, :, 1] = 0, 0
    y, _ = ssd_reference(x, dt, A, B, C)
    without, _ = ssd_reference(x, dt, A, B[..., 2:], C[..., 2:])
    energies = states.head_energies(x, dt, A, B, C).energy
    assert torch.allclose((y - without).square().sum((0, 1, 3)), energies[:, :2].sum(-1))


@pytest.mark.parametrize("name", ["nemotron_h", "mamba", "falcon_h1", "jamba", "zamba2"])
@pytest.mark.parametrize("criterion", ["activation", "balanced"])
def test_a_silent_entry_ranks_last(name: str, criterion: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    """Planted through C's rows: nothing reads the entry."""
    parent, tensors = parents[name], {n: t.clone() for n, t in parents[name].tensors.items()}
    s, kept = parent.anatomy.sizes, parent.anatomy.parents["n"]
    layer = int(parent.anatomy.scopes["n"][-1])
    for decl in parent.anatomy.tensors.values():
        found = lo.labels(decl.layout, s)
        if decl.layer == layer and "C" in found and {"d", "c1"} & set(decl.layout.axes):
            dim, start, stop = found["C"]
            rows = tensors[decl.name].narrow(dim, start, stop - start)
            rows.view(-1, s["n"], rows.shape[-1])[:, 3] = 0
            bias = decl.name.replace("in_proj.weight", "conv1d.bias")
            if bias != decl.name and bias in tensors and kept:
                tensors[bias][-s["g"] * s["n"] :].view(-1, s["n"])[:, 3] = 0
    stats = measure(write(tmp_path / "silent", parent.anatomy.raw, tensors))
    got = MEASURED[criterion](parent.anatomy, stats, ["n"], s, tensors.__getitem__)["n", str(layer)]
    assert got.shape == (*(s[p] for p in kept), s["n"])
    assert (got.argmin(-1) == 3).all()


@pytest.mark.parametrize("name", ["nemotron_h", "mamba"])
def test_cutting_by_state_scores_equals_masking(
    name: str, parents: dict[str, Parent], measured: Callable[[str], Stats], tmp_path: Path
) -> None:
    parent = parents[name]
    sizes = resolve(parent.anatomy, {"ssm_state": 4})
    found = MEASURED["activation"](parent.anatomy, measured(name), ["n"], sizes, parent.tensors.__getitem__)
    keep = keep_best(parent.anatomy, found, sizes)
    masked, child = cut_pair(parent, Cut(parent.anatomy, keep, tuple(range(parent.anatomy.n_layers))), tmp_path)
    assert distance(logits(masked), logits(child)) < 1e-10
