"""One layer's repair: who is repaired, towards what, on which text, and what stays."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from secateur.errors import UsageError
from secateur.model import Model, open_model
from secateur.pruning.recorded import recorded_cut
from secateur.pruning.repair import layer as under_test
from secateur.pruning.repair.evidence import Evidence
from secateur.pruning.repair.layer import LayerRepair, Repair, Task, norms, split, stream_gain, writers
from secateur.pruning.repair.pair import Pair, captured, walk_pair
from tests.contract.harness import Parent, double_precision, load

from .models import batches, cut, last_states, windows

Parents = dict[str, Parent]


def visit_all(parent: Model, child: Model, visit: Callable[[Pair], Any], ids: torch.Tensor | None = None) -> None:
    found, text = recorded_cut(parent, child), windows() if ids is None else ids
    rows = found.keep.get("d", "", {}).tolist()
    walk_pair(parent, child, found.layers, rows, batches(text, max(4, len(text) // 8)), lambda pair: visit(pair) or {})


# ---- the pair -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "nemotron_h"])
def test_an_identity_cut_keeps_both_streams_equal(name: str, parents: Parents) -> None:
    one, other = open_model(parents[name].folder), open_model(parents[name].folder)
    seen = []

    def visit(pair: Pair) -> None:
        assert pair.parent.index == pair.child.index == len(seen)
        for b in pair.batches:
            assert torch.equal(pair.parent_stream.hidden[b], pair.child_stream.hidden[b])
            assert torch.equal(pair.run("parent", b), pair.run("child", b))
        seen.append(pair)

    n = one.anatomy.n_layers
    walk_pair(one, other, range(n), range(one.anatomy.sizes["d"]), batches(windows(8)), lambda pair: visit(pair) or {})
    assert len(seen) == n
    last = seen[-1].child_stream.hidden[1]
    with double_precision():
        want = last_states(load(parents[name].folder), n - 1, windows(8)[4:])
    assert torch.allclose(last.double(), want, atol=1e-3 * float(want.std()))


@pytest.mark.parametrize(("name", "kept"), [("nemotron_h", [0, 2, 4, 5]), ("mamba2", [1]), ("llama", [1, 2])])
def test_dropped_layers_are_run_and_passed_by(name: str, kept: list[int], parents: Parents, tmp_path: Path) -> None:
    parent, child = cut(parents[name], tmp_path / "child", {}, kept)
    told, seen = [], []

    def visit(pair: Pair) -> None:
        assert pair.parent.index == kept[len(seen)] and pair.child.index == len(seen)
        mine = dict(pair.child.block.named_parameters())
        assert all(torch.equal(p, mine[n]) for n, p in pair.parent.block.named_parameters())
        seen.append([pair.parent_stream.hidden[0], pair.child_stream.hidden[0]])

    ids, n = windows(4), parent.anatomy.n_layers
    rows = range(parent.anatomy.sizes["d"])
    walk_pair(parent, child, kept, rows, batches(ids), lambda p: visit(p) or {}, progress=lambda *a: told.append(a))
    assert told == [(j + 1, len(kept)) for j in range(len(kept))]
    for old, (before, mine) in zip(kept, seen, strict=True):
        if old:
            with double_precision():
                whole = load(parents[name].folder)
                blocks = next(m for m in whole.modules() if isinstance(m, nn.ModuleList) and len(m) == n)
                entering = []
                blocks[old].register_forward_pre_hook(lambda m, a, e=entering: e.append(a[0]))
                with torch.no_grad():
                    whole(ids, use_cache=False)
            assert torch.allclose(before.double(), entering[0], atol=1e-3 * float(entering[0].std()))
        assert mine.shape == before.shape


# ---- which text ---------------------------------------------------------------------------------------------------


def test_no_batch_both_fits_and_judges() -> None:
    for n in range(2, 20):
        fit, judge = split(range(n))
        assert fit and judge and sorted(fit + judge) == list(range(n)), n
    assert split(range(8)) == ([0, 1, 2, 4, 5, 6], [3, 7])
    with pytest.raises(UsageError, match="1 batches of text"):
        split(range(1))


def test_the_fit_does_not_see_the_judging_text(
    parents: Parents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, child = cut(parents["nemotron_h"], tmp_path / "child")
    ids = windows(16)
    other = torch.cat([ids[:12], windows(4, seed=9)])
    changed = torch.cat([windows(4, seed=9), ids[4:]])
    first, plain = [], Evidence.solve
    for text in (ids, other, changed):
        solved: list[torch.Tensor] = []

        def solve(*args: Any, into: list[torch.Tensor] = solved, **kw: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
            weight, bias = plain(*args, **kw)
            into.append(weight)
            return weight, bias

        monkeypatch.setattr(Evidence, "solve", solve)
        visit_all(parent, child, LayerRepair(recorded_cut(parent, child), ("least-squares",)), text)
        first.append(solved[0])
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


# ---- which tensors, and towards what ------------------------------------------------------------------------------


WRITERS = {
    "llama": {0: {"self_attn.o_proj.weight": None, "mlp.down_proj.weight": 1.0}},
    "nemotron_h": {
        0: {"mixer.out_proj.weight": 1.0},
        1: {"mixer.down_proj.weight": 1.0},
        2: {"mixer.o_proj.weight": 1.0},
        4: {"mixer.shared_experts.down_proj.weight": 1.0},
    },
    "mamba2": {1: {"mixer.out_proj.weight": 1.0}},
    "falcon_h1": {
        0: {"mamba.out_proj.weight": None, "self_attn.o_proj.weight": None, "feed_forward.down_proj.weight": "mlp"}
    },
    # norms behind attention and MLP: no constant gain anywhere
    "gemma3_text": {0: {"self_attn.o_proj.weight": None, "mlp.down_proj.weight": None}},
    "granitemoehybrid": {0: {"mamba.out_proj.weight": None, "shared_mlp.output_linear.weight": "residual"}},
    # the shared expert passes a gate of its own
    "qwen3_next": {0: {"linear_attn.out_proj.weight": None, "mlp.shared_expert.down_proj.weight": None}},
    "gpt2": {0: {}},  # its linears are stored transposed
}


def nudged(pair: Pair, module: nn.Linear) -> float | None:
    with captured(module) as seen:
        plain = pair.run("child", 0)
    return stream_gain(pair, module, 0, seen["out"], plain)


@pytest.mark.parametrize("name", WRITERS)
def test_writers_and_their_gain(name: str, parents: Parents) -> None:
    over = {"mlp": ("mlp_multipliers", [0.7, 1.3], 1.3), "residual": ("residual_multiplier", 0.22, 0.22)}
    parent, twin = open_model(parents[name].folder), open_model(parents[name].folder)
    expected = WRITERS[name]
    for want in {v for row in expected.values() for v in row.values() if isinstance(v, str)}:
        field, value, _ = over[want]
        for model in (parent, twin):
            setattr(model.anatomy.config.object, field, value)
    found = {}

    def visit(pair: Pair) -> None:
        if pair.child.index in expected:
            found[pair.child.index] = {n: nudged(pair, m) for n, m in writers(pair.child)}

    walk_pair(
        parent,
        twin,
        range(parent.anatomy.n_layers),
        range(parent.anatomy.sizes["d"]),
        batches(windows(2), 1),
        lambda pair: visit(pair) or {},
    )
    for index, row in expected.items():
        assert found[index].keys() == row.keys()
        for tensor, gain in row.items():
            want = over[gain][2] if isinstance(gain, str) else gain
            assert found[index][tensor] == (want if want is None else pytest.approx(want, rel=1e-3)), tensor


class _Residual(nn.Module):
    """stream + what(linear(stream)): what lies between a linear and the stream."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor], scale: float) -> None:
        super().__init__()
        self.linear, self.between, self.scale = nn.Linear(6, 6, bias=False), between, scale
        nn.init.normal_(self.linear.weight, std=scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.between(self.linear(x))


class _OnePair:
    """As much of a pair as a nudge needs."""

    def __init__(self, block: _Residual) -> None:
        self.block = block
        self.states = torch.randn(1, 9, 6, generator=torch.Generator().manual_seed(0))
        self.states[..., 2] += 1e3  # streams of trained models have such channels

    def run(self, side: str, batch: int) -> torch.Tensor:
        return self.block(self.states)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize(
    ("between", "gain"),
    [
        (lambda x: x, 1.0),
        (lambda x: -0.22 * x, -0.22),
        (lambda x: x * 0, None),
        (lambda x: x - x.mean(-1, keepdim=True), None),
        (lambda x: nn.functional.layer_norm(x, (6,)), None),
        (lambda x: nn.functional.rms_norm(x, (6,)), None),
        (lambda x: x * torch.linspace(0.1, 1, 9)[:, None], None),  # a gate for every token
        (lambda x: x * torch.linspace(0.5, 1, 6), None),  # a scale for every channel
        (lambda x: x.cumsum(1) / torch.arange(1, 10)[:, None], None),  # constant nudges look untouched
        (lambda x: x.flip(-1), None),
        (lambda x: x + nn.functional.silu(x), None),
    ],
)
def test_the_nudge(between: Callable[[torch.Tensor], torch.Tensor], gain: float | None, scale: float) -> None:
    torch.manual_seed(0)
    block = _Residual(between, scale)
    got = nudged(_OnePair(block), block.linear)  # type: ignore[arg-type]
    assert got == (gain if gain is None else pytest.approx(gain, rel=2e-2 if scale < 1 else 1e-3))


@pytest.mark.parametrize("name", ["nemotron_h", "falcon_h1"])
def test_what_a_layer_puts_out_follows_without_another_run(name: str, parents: Parents, tmp_path: Path) -> None:
    """Behind the last linear that was fitted, also where the layer multiplies its output on the way; the parent runs
    once."""
    parent, child = cut(parents[name], tmp_path / "child")
    for model in (parent, child):
        model.anatomy.config.object.mlp_multipliers = [0.7, 1.3]
    work, followed = LayerRepair(recorded_cut(parent, child)), []

    def visit(pair: Pair) -> None:
        ran, plain, (fit, judge), made = [], Pair.run, split(pair.batches), len(work.log)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Pair, "run", lambda self, side, b: ran.append((side, b)) or plain(self, side, b))
            patch.setattr(Repair, "applied", True)  # with so little text, few would stay
            found = work(pair)
        assert {*judge} <= found.keys()
        read = len(list(norms(pair.child))) + (len(list(writers(pair.child))) if name == "falcon_h1" else 0)
        assert all(ran.count(("parent", b)) <= max(1, read) for b in fit)
        assert len(pair.after) == len(pair.batches)
        for b, got in found.items():
            want = pair.run("child", b)
            assert torch.allclose(got, want, atol=1e-4 * float(want.std()))
        if any(r.method == "least squares" for r in work.log[made:]):
            followed.extend(b for b in fit if b in found)

    visit_all(parent, child, visit, windows(12, 6))
    assert followed


# ---- what stays ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "nemotron_h", "mamba2", "falcon_h1", "gemma3_text"])
@pytest.mark.parametrize("feedback", [True, False])
def test_only_what_lowers_the_error_stays(name: str, feedback: bool, parents: Parents, tmp_path: Path) -> None:
    parent, child = cut(parents[name], tmp_path / "child")
    work = LayerRepair(recorded_cut(parent, child), feedback=feedback)

    def visit(pair: Pair) -> None:
        before, made = Task.of(pair).error(), len(work.log)
        held = {n: p.detach().clone() for n, p in pair.child.block.named_parameters()}
        work(pair)
        mine = work.log[made:]
        after = Task.of(pair).error()
        assert mine[0].before == pytest.approx(before, rel=1e-6)
        assert all(b.before == (a.after if a.applied else a.before) for a, b in itertools.pairwise(mine))
        assert after == pytest.approx(min([before, *(r.after for r in mine if r.applied)]), rel=1e-6)
        stayed = {r.tensor.rpartition(".")[0] for r in mine if r.applied}
        prefix = pair.child.anatomy.layer_prefix(pair.child.index)
        for n, p in pair.child.block.named_parameters():
            if n.rpartition(".")[0] not in stayed:
                assert torch.equal(p, held[n]), n
                assert prefix + n not in work.changed
            elif prefix + n in work.changed:
                assert torch.equal(p, work.changed[prefix + n])

    visit_all(parent, child, visit, windows(80, 24))
    index = min(WRITERS[name])
    squares = [r for r in work.log if r.method == "least squares"]
    assert {r.tensor for r in squares if r.layer == index} == set(WRITERS[name][index])
    assert any(r.applied for r in squares) and work.changed


def test_repairs_that_do_harm_are_undone(parents: Parents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = cut(parents["llama"], tmp_path / "child")
    harm = iter(range(100))

    def solve(tokens: Evidence, weight: torch.Tensor, **kw: object) -> tuple[torch.Tensor, None]:
        return weight.double() * (float("nan") if next(harm) % 2 else 30.0), None

    monkeypatch.setattr(Evidence, "solve", solve)
    monkeypatch.setattr(under_test, "fitted_scale", lambda pairs: len(list(pairs)) * 10.0)
    work = LayerRepair(recorded_cut(parent, child))
    visit_all(parent, child, work)
    assert len(work.log) == 3 * 4 and not work.changed
    assert not any(r.applied for r in work.log)


def test_feedback_makes_up_for_earlier_layers(parents: Parents, tmp_path: Path) -> None:
    """On the text it is fitted on, no weight comes closer to the parent's stream than the one with feedback."""
    parent, child = cut(parents["mamba2"], tmp_path / "child", {"ssm_heads": 6})
    errors: dict[str, float] = {}

    def visit(pair: Pair) -> None:
        if pair.child.index == 0:
            return  # not repaired, so that there is something to make up for
        task = Task.of(pair)
        task = dataclasses.replace(task, judge=task.fit)
        name, module = next(writers(pair.child))
        cut_weight = module.weight.data.clone()
        for kind in ("cut", "without", "with"):
            module.weight.data.copy_(cut_weight)
            if kind != "cut":
                LayerRepair(recorded_cut(parent, child), damp=0.0, feedback=kind == "with")._ridge(task, module, name)
            errors[kind] = task.error()
        g = torch.Generator().manual_seed(0)
        best = module.weight.data.clone()
        for _ in range(5):
            module.weight.data.copy_(best + 0.01 * torch.randn(best.shape, generator=g))
            assert task.error() > errors["with"]

    visit_all(parent, child, visit, windows(40, 16))
    assert errors["with"] < 0.99 * errors["without"] < errors["cut"]


def test_norm_factor_is_the_least_squares_one(parents: Parents, tmp_path: Path) -> None:
    """A child whose first norm was spoilt by a factor gets it back; norms stored as w - 1 as well."""
    for name, tensor, offset in (("llama", "input_layernorm", 0.0), ("gemma3_text", "pre_feedforward_layernorm", 1.0)):
        parent, child = cut(parents[name], tmp_path / name, {"ffn": 40})
        work = LayerRepair(recorded_cut(parent, child), ("norm",))
        found: dict[str, torch.Tensor] = {}

        def visit(
            pair: Pair, tensor: str = tensor, offset: float = offset, work: Any = work, held: Any = found
        ) -> None:
            if pair.child.index == 0:
                weight = pair.child.block.get_submodule(tensor).weight.data
                held["want"] = weight.clone()
                weight.copy_((weight + offset) * 1.7 - offset)
                work(pair)
                held["got"] = weight.clone()

        visit_all(parent, child, visit)
        assert next(r.applied for r in work.log if r.tensor == f"{tensor}.weight")
        assert torch.allclose(found["got"], found["want"], atol=1e-5)


def test_norms_of_units_that_are_gone_are_passed_by(parents: Parents, tmp_path: Path) -> None:
    """Per-head norms put out fewer heads than the parent's."""
    parent, child = cut(parents["qwen3"], tmp_path / "child", {"kv_heads": 2})
    work = LayerRepair(recorded_cut(parent, child), ("norm",))
    every = []

    def visit(pair: Pair) -> None:
        every.extend(n for n, _ in norms(pair.child))
        work(pair)

    visit_all(parent, child, visit)
    assert "self_attn.q_norm.weight" in every
    assert "input_layernorm.weight" in {r.tensor for r in work.log}
    assert not any("_norm" in r.tensor.replace("layernorm", "") for r in work.log)


def test_blocks_that_layers_share_are_left_alone(parents: Parents, tmp_path: Path) -> None:
    parent, child = cut(parents["zamba2"], tmp_path / "child")
    work = LayerRepair(recorded_cut(parent, child))
    visit_all(parent, child, work)
    assert work.log and not any("shared_transformer" in r.tensor for r in work.log)
