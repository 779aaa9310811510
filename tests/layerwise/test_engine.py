"""The engine around the methods: what it refuses, shares, resumes, and does with starved experts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from secateur import api
from secateur.anatomy import layout as lo
from secateur.calibration import journal
from secateur.calibration.observer import Layer
from secateur.calibration.walker import walk
from secateur.cli import run
from secateur.errors import LayoutError, UsageError
from secateur.layerwise import places
from secateur.layerwise.engine import Engine
from secateur.layerwise.observe import Grams
from secateur.layerwise.run import Job, compress
from secateur.layerwise.sparsify import SPARSIFY
from secateur.layerwise.watch import Watch
from secateur.layerwise.write import read_audit
from secateur.model import open_model
from secateur.recipe.execute import run_recipe
from secateur.recipe.steps import load_recipe
from tests.contract.conftest import parents as parents
from tests.contract.harness import Parent
from tests.train import tiny

WANDA, SPARSEGPT = SPARSIFY["wanda"], SPARSIFY["sparsegpt"]


def windows(count: int = 6, length: int = 16) -> torch.Tensor:
    return torch.randint(3, 97, (count, length), generator=torch.Generator().manual_seed(1))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for f in sorted(folder.glob("*.safetensors")) for k, v in load_file(f).items()}


def test_a_planted_parameter_makes_the_command_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that no layout covers, in the files."""
    folder = tiny.parent(tmp_path / "parent")
    planted = tensors(folder) | {"model.layers.0.mlp.planted.weight": torch.ones(3, 3)}
    save_file(planted, folder / "model.safetensors", {"format": "pt"})
    assert run(["sparsify", str(folder), "--method", "magnitude", "--out", str(tmp_path / "out")]) == 2
    assert "planted" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_declared_parameter_that_no_rule_covers_makes_the_command_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that a family declares, and that is neither a linear nor left by a rule."""
    folder = tiny.parent(tmp_path / "parent")
    monkeypatch.setattr(places, "RULES", tuple(r for r in places.RULES if "vector" not in r[1]))
    assert run(["sparsify", str(folder), "--method", "magnitude", "--out", str(tmp_path / "out")]) == 2
    assert "no rule says" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.work").exists()


@pytest.mark.parametrize("family", ["llama", "nemotron_h", "mamba", "mamba2", "mixtral", "recurrent_gemma"])
def test_a_block_left_at_its_last_product_gives_the_same_bits(
    family: str, parents: dict[str, Parent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, found, left = open_model(parents[family].folder), {}, []
    for brief in (True, False):

        def grams(*given: Any, brief: bool, wanted: bool = brief) -> Grams:
            made = Grams(*given, brief=wanted)
            block, calls = made.block, []
            monkeypatch.setattr(made, "block", lambda *args: (calls.append(1), block(*args))[1])
            left.append(calls)
            return made

        monkeypatch.setattr("secateur.layerwise.run.Grams", grams)
        compress(
            model, windows(), tmp_path / str(brief), SPARSEGPT, SPARSEGPT.configure(), Job(step="sparsify", batch=2)
        )
        found[brief] = tensors(tmp_path / str(brief))
    assert all(torch.equal(found[True][k], found[False][k]) for k in found[False])
    assert len(left[1]) == 3 * model.anatomy.n_layers
    assert len(left[0]) == sum(3 if "moe" in kinds else 1 for kinds in model.anatomy.kinds)


def test_linears_that_read_one_input_share_one_gram(parents: dict[str, Parent]) -> None:
    model = open_model(parents["llama"].folder)
    grams, seen = Grams("gram", 1), {}

    def edit(layer: Layer) -> bool:
        seen.update({p.decl.key: grams.shares((p.name, 0)) for p in grams.places})
        grams.forget()
        return False

    walk(model, [windows()], [grams], edit=edit)
    assert seen["self_attn.q_proj.weight"] == seen["self_attn.k_proj.weight"] == seen["self_attn.v_proj.weight"]
    assert seen["mlp.gate_proj.weight"] == seen["mlp.up_proj.weight"]
    assert len(set(seen.values())) == 4, "q, k, v; o; gate, up; down"


@pytest.mark.parametrize("name", ["mamba", "nemotron_h", "gpt2"])
def test_grams_are_those_of_what_hooks_see(name: str, parents: dict[str, Parent]) -> None:
    """Against forward hooks on the modules, where there are any; Mamba-1's dt_proj is read past its module."""
    model = open_model(parents[name].folder)
    grams, want, got = Grams("gram", 1), {}, {}

    class Hooks:
        def __init__(self) -> None:
            self.state: dict[str, torch.Tensor] = {}

        def attach(self, layer: Layer) -> list[Any]:
            found = [p for p in places.places(layer) if p.module is not None]
            return [p.module.register_forward_pre_hook(self.note(p.name)) for p in found]  # type: ignore[union-attr]

        def note(self, name: str) -> Any:
            def hook(module: Any, args: Any) -> None:
                x = args[0].detach().reshape(-1, args[0].shape[-1]).double()
                want[name] = want.get(name, 0) + x.T @ x

            return hook

        def block(self, layer: Layer, before: torch.Tensor, after: torch.Tensor) -> None:
            pass

    def edit(layer: Layer) -> bool:
        got.update({p.name: grams.gram((p.name, 0)) for p in grams.places if p.role == "linear"})
        grams.forget()
        return False

    walk(model, [windows()], [Hooks(), grams], edit=edit)
    assert all(g is not None and g.tokens == windows().numel() for g in got.values())
    for key, matrix in want.items():
        assert torch.allclose(got[key].matrix, matrix, rtol=1e-4, atol=1e-4 * float(matrix.abs().max())), key
    unhooked = set(got) - set(want)
    assert all("dt_proj" in n for n in unhooked) and bool(unhooked) == (name == "mamba")


def test_a_watched_weight_sees_every_kind_of_product() -> None:
    module, seen = torch.nn.Linear(3, 4), []
    watch = Watch(module, "weight", lambda x, first: seen.append((tuple(x.shape), first)))
    x, y = torch.randn(2, 5, 3), torch.randn(7, 4)
    with torch.no_grad():
        want = [torch.nn.functional.linear(x, watch.weight, module.bias), watch.weight @ x.mT, y @ watch.weight]
        got = [module(x), module.weight @ x.mT, y @ module.weight]
        torch.addmm(torch.zeros(3), y, module.weight)
    for a, b in zip(want, got, strict=True):
        assert type(b) is torch.Tensor
        assert torch.allclose(a, b)
    assert seen == [((2, 5, 3), False), ((2, 5, 3), False), ((7, 4), True), ((7, 4), True)]
    watch.remove()
    assert type(module.weight) is torch.nn.Parameter


@pytest.mark.parametrize("name", ["nemotron_h", "zamba2"])
def test_an_interrupted_run_resumes_to_the_same_result(
    name: str, parents: dict[str, Parent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "EVERY_SECONDS", 0.0)
    model, settings, job = open_model(parents[name].folder), SPARSEGPT.configure(), Job(step="sparsify", batch=2)
    compress(model, windows(), tmp_path / "whole", SPARSEGPT, settings, job)
    plain, edited = Engine.edit, []

    def edit(self: Engine, layer: Layer) -> bool:
        if layer.index == 2 and not edited.count("stop"):
            edited.append("stop")
            raise KeyboardInterrupt
        edited.append(layer.index)
        return plain(self, layer)

    monkeypatch.setattr(Engine, "edit", edit)
    with pytest.raises(KeyboardInterrupt):
        compress(model, windows(), tmp_path / "again", SPARSEGPT, settings, job)
    assert not (tmp_path / "again").exists()
    with pytest.raises(UsageError, match="not this one"):
        compress(model, windows(), tmp_path / "again", SPARSEGPT, SPARSEGPT.configure(pattern="30%"), job)
    compress(model, windows(), tmp_path / "again", SPARSEGPT, settings, job)
    assert edited[:4] == [0, 1, "stop", 2], "layers that were done are done again"
    one, other = tensors(tmp_path / "whole"), tensors(tmp_path / "again")
    assert all(torch.equal(one[n], other[n]) for n in one)
    assert not (tmp_path / "again.work").exists()
    lines = [json.dumps(read_audit(tmp_path / f)["linears"]) for f in ("whole", "again")]
    assert lines[0] == lines[1]


def test_a_shared_block_is_solved_on_all_of_its_users(parents: dict[str, Parent], tmp_path: Path) -> None:
    parent = parents["zamba2"]
    model = open_model(parent.folder)
    users = {b: sum(model.anatomy.block_of(i) == b for i in model.anatomy.shared_users) for b in range(2)}
    assert max(users.values()) > 1
    compress(model, windows(), tmp_path / "out", SPARSEGPT, SPARSEGPT.configure(), Job(step="sparsify", batch=2))
    lines = {line["tensor"]: line for line in read_audit(tmp_path / "out")["linears"]}
    prefix = str(model.anatomy.family.shared.prefix)  # type: ignore[union-attr]
    for name, decl in model.anatomy.tensors.items():
        if name in lines and decl.pattern.startswith(prefix) and "S" not in decl.env:
            block = model.anatomy.block_of(decl.layer)  # type: ignore[arg-type]
            assert lines[name]["tokens"] == users[block] * 4 * 16, name


def test_a_starved_expert_is_solved_on_all_of_the_layer_and_says_so(parents: dict[str, Parent], tmp_path: Path) -> None:
    model = open_model(parents["mixtral"].folder)
    few = windows(2, 4)  # a window to fit on, one to judge: 4 tokens, 8 choices among 5 experts of 40 inputs
    compress(model, few, tmp_path / "out", SPARSEGPT, SPARSEGPT.configure(), Job(step="sparsify", batch=1))
    lines = [line for line in read_audit(tmp_path / "out")["linears"] if "experts" in line["tensor"]]
    assert all("all experts" in line["why"] for line in lines)
    picked = lo.shape(model.anatomy.tensors[lines[0]["tensor"]].layout, model.anatomy.sizes)
    assert picked and {line["tokens"] for line in lines} == {4 * 2}


def test_a_linear_that_does_not_fit_the_pattern_is_left_and_said(parents: dict[str, Parent], tmp_path: Path) -> None:
    """The step-size rank of this Mamba is 5."""
    parent = parents["mamba"]
    out, settings = tmp_path / "out", WANDA.configure(pattern="2:4")
    compress(open_model(parent.folder), windows(), out, WANDA, settings, Job(step="sparsify"))
    audit = read_audit(out)
    left = {n: e["why"] for n, e in audit["tensors"].items() if n.endswith("dt_proj.weight")}
    assert left and all("5 inputs do not divide into groups of 4" in why for why in left.values())
    assert all(torch.equal(tensors(out)[n], parent.tensors[n]) for n in left)


def test_predicted_error_is_measured_on_other_text(tmp_path: Path) -> None:
    """With much text of one kind, the Gram's prediction and the judge agree; the judge is not in the Gram."""
    folder = tiny.parent(tmp_path / "parent")
    text = tiny.text(tmp_path, words=20_000)
    api.sparsify(folder, tmp_path / "out", text=text, method="sparsegpt", samples=68, length=32, batch=4)
    lines = read_audit(tmp_path / "out")["linears"]
    assert all(line["tokens"] == 64 * 32 for line in lines)
    assert all(line["measured"] == pytest.approx(line["predicted"], rel=0.3) for line in lines)
    assert all(line["measured"] != line["predicted"] for line in lines)


def test_the_verb_says_what_it_takes_and_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, text = tiny.parent(tmp_path / "parent"), tiny.text(tmp_path)
    command = ["sparsify", str(folder), "--method", "wanda", "--pattern", "2:4", "--text", str(text)]
    assert run([*command, "--samples", "8", "--length", "16", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "Gram matrices will take at most" in said.err
    assert "model.layers.*.mlp.down_proj.weight" in said.out
    assert "28 tensors sparsified" in said.out and "a vector" in said.out
    assert run([*command, "--out", str(tmp_path / "out")]) == 2
    assert run(["sparsify", str(folder), "--method", "wanda", "--out", str(tmp_path / "none")]) == 2
    assert "no text is given" in capsys.readouterr().err


def test_an_unread_layout_is_an_error(parents: dict[str, Parent], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "parameter", lambda *args: None)
    with pytest.raises(LayoutError, match="no rule says"):
        list(places.places(Layer(0, ("attention",), torch.nn.Identity(), open_model(parents["llama"].folder).anatomy)))


def test_it_is_a_step_of_a_recipe(tmp_path: Path) -> None:
    tiny.parent(tmp_path / "parent")
    tiny.text(tmp_path)
    step = "sparsify: {model: ./parent, method: wanda, pattern: '2:4', text: text.txt, samples: 8, length: 16}"
    healing = "distill: {student: sparsify, teacher: ./parent, text: text.txt, tokens: '1000'}"
    (tmp_path / "recipe.yaml").write_text(f"work: out\nsteps:\n  - {step}\n  - {healing}\n")
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.steps[1].inputs == (recipe.steps[0],)
    alone = replace(recipe, steps=recipe.steps[:1])
    assert [d.runs for d in run_recipe(alone)] == [True]
    assert read_audit(tmp_path / "out" / "sparsify")["summary"]["sparsified"] == 28
    assert [d.runs for d in run_recipe(alone)] == [False]


def test_linears_in_turn_take_one_process_and_a_known_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(tiny.parent(tmp_path / "parent"))
    for job, word in ((Job(step="", sequential="block"), "block"), (Job(step="", sequential="linear"), "one process")):  # type: ignore[arg-type]
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        with pytest.raises(UsageError, match=word):
            compress(model, windows(), tmp_path / "out", WANDA, WANDA.configure(), job)
    assert not (tmp_path / "out").exists()


def test_what_one_batch_raises_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that run side by side are all given up, and the same call goes on from there."""
    model = open_model(tiny.parent(tmp_path / "parent"))
    plain, left = Engine.in_turn, [9]

    def fails(self: Engine, said: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        plain(self, said)

    job = Job(step="sparsify", batch=2, sequential="linear")
    monkeypatch.setattr(journal, "EVERY_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "in_turn", fails)
        with pytest.raises(KeyboardInterrupt):
            compress(model, windows(), tmp_path / "out", SPARSEGPT, SPARSEGPT.configure(), job)
    compress(model, windows(), tmp_path / "out", SPARSEGPT, SPARSEGPT.configure(), job)
    compress(model, windows(), tmp_path / "whole", SPARSEGPT, SPARSEGPT.configure(), job)
    left_off, whole = tensors(tmp_path / "out"), tensors(tmp_path / "whole")
    assert all(torch.equal(left_off[n], whole[n]) for n in whole)
