"""The halving benchmark on a random model of a few thousand parameters: units run once, resume, and become tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.common.units import Unit, held, read, run_all
from benchmarks.halving import axes, blind, budget, healing, oneshot, table
from benchmarks.halving.bench import Bench
from benchmarks.halving.children import METHODS, make
from benchmarks.halving.run import main
from benchmarks.halving.text import write_passages
from transformers import NemotronHConfig, NemotronHForCausalLM

from secateur.model import open_model
from tests.data.tokenizers_ import byte_tokenizer

TINY = dict(
    hidden_size=16, intermediate_size=128, ssm_state_size=8, mamba_num_heads=32, mamba_head_dim=8, n_groups=4,
    chunk_size=8, tie_word_embeddings=False, num_attention_heads=2, num_key_value_heads=1, head_dim=8, vocab_size=258,
    max_position_embeddings=128, num_nextn_predict_layers=0,
    layers_block_type=["linear_attention", "mlp", "full_attention"],
)  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("halving")
    torch.manual_seed(0)
    model = NemotronHForCausalLM(NemotronHConfig(**TINY))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape))
    model.save_pretrained(folder / "parent")
    byte_tokenizer(adds_bos=True).save_pretrained(folder / "parent")
    words, rng = ["the", "cat", "sat", "on", "a", "mat"], np.random.default_rng(0)
    for name in ("train/a.txt", "train/b.txt", "eval/heldout.txt"):
        file = folder / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n\n".join(" ".join(rng.choice(words, 40)) for _ in range(150)))
    return Bench(folder / "parent", folder / "data", folder / "work", samples=8, rows=4, length=32)


def test_units_run_once_and_resume(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = f"--parent {bench.parent} --data {bench.data} --work {bench.work} --results {tmp_path}"
    command = f"oneshot {places} --seeds 0 --shapes 45 --samples 8 --rows 4 --length 32".split()
    main([*command, "--only", "method=parent"])
    main(command)
    path = tmp_path / oneshot.FILE
    first = path.read_text()
    assert {line["settings"]["method"] for line in read(path)} == {"parent", *METHODS}
    assert "oneshot: 0 units run" not in capsys.readouterr().out
    path.write_text("".join(line + "\n" for line in first.splitlines()[:-1]) + '{"settings": {"meth')
    whole = read(path)
    path.write_text("".join(json.dumps(line) + "\n" for line in whole))
    main(command)
    assert "oneshot: 1 units run" in capsys.readouterr().out
    again = read(path)
    assert [line["result"] for line in again] == [json.loads(line)["result"] for line in first.splitlines()]
    assert "| published recipe |" in table.sections(tmp_path)


def test_a_unit_that_another_process_holds_is_left_to_it(tmp_path: Path) -> None:
    unit = Unit({"a": 1}, lambda: {"loss": 1.0})
    with held(tmp_path / "locks" / "a=1.lock") as mine:
        assert mine
        assert run_all([unit], tmp_path / "r.jsonl", tmp_path / "locks", print) == 0
    assert run_all([unit], tmp_path / "r.jsonl", tmp_path / "locks", print) == 1
    assert run_all([unit], tmp_path / "r.jsonl", tmp_path / "locks", print) == 0


def test_moving_heads_over_groups_changes_the_model_and_within_a_group_does_not(bench: Bench, tmp_path: Path) -> None:
    order, moved = blind.global_order(np.arange(8.0).reshape(2, 4), 2, by_rank=False)
    assert order.reshape(2, 4)[:, :2].tolist() == [[4, 5], [6, 7]] and moved == 2
    ids = bench.windows(0)[:2]
    stats, keep = bench.stats(0), {"ssm_heads": 16, "ffn": 64}
    base = NemotronHForCausalLM.from_pretrained(bench.parent).eval()
    across, count = blind.move_heads(bench.model, stats, keep, tmp_path / "m", by_rank=True)
    other = NemotronHForCausalLM.from_pretrained(across.folder).eval()
    with torch.no_grad():
        want, got = base(ids).logits, other(ids).logits
    assert count > 0
    assert (want - got).abs().max() > 0.05 * want.std()
    # every head alike: the old order, so nothing moves
    even = replace(stats, tensors={k: torch.ones_like(v) for k, v in stats.tensors.items()})
    same, count = blind.move_heads(bench.model, even, {"ssm_heads": 32, "ffn": 64}, tmp_path / "s", by_rank=True)
    with torch.no_grad():
        got = NemotronHForCausalLM.from_pretrained(same.folder).eval()(ids).logits
    assert count == 0
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_flap_biases_carry_the_mean_of_what_went(bench: Bench, tmp_path: Path) -> None:
    child, _ = make(bench, "45", "FLAP", 0, tmp_path / "flap")
    bare, _ = make(bench, "45", "FLAP, no bias", 0, tmp_path / "bare")
    mean = torch.from_numpy(bench.stats(0).get(1, "mixer.down_proj.weight", "in", "sum")) / bench.stats(0).tokens
    whole = bench.model.read("backbone.layers.1.mixer.down_proj.weight").double() @ mean
    kept = bare.read("backbone.layers.1.mixer.down_proj.weight").double()
    record = json.loads((tmp_path / "bare" / "secateur.json").read_text())["kept"]["f"]["1"]
    rows = [i for run in record.split(",") for i in range(int(run.split("-")[0]), int(run.split("-")[-1]) + 1)]
    bias = child.read("backbone.layers.1.mixer.down_proj.bias").double()
    torch.testing.assert_close(kept @ mean[rows] + bias, whole, rtol=1e-4, atol=1e-5)


def test_healing_goes_through_the_library_and_keeps_its_curve(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healing, "TOKENS", 4 * 512 * 2)
    monkeypatch.setattr(healing, "EVERY", 4 * 512)
    long = replace(bench, samples=8)
    for file in (bench.data / "train").glob("*.txt"):
        assert len(file.read_text()) > 4 * 512 * 2
    units = [u for u in healing.units(long, [0], []) if u.settings["run"] in ("pruned + KD", "scratch + CE")]
    run_all(units, tmp_path / healing.FILE, tmp_path / "locks", print)
    lines = read(tmp_path / healing.FILE)
    assert [[t for t, _ in line["result"]["curve"]] for line in lines] == [[0, 2048, 4096]] * 2
    assert lines[1]["result"]["loss"] < lines[1]["result"]["before"]  # the teacher is random and knows no text
    assert (
        open_model(healing.pruned(long, "45", 0)).anatomy.sizes
        == open_model(healing.random_twin(long, "45", 0)).anatomy.sizes
    )
    assert "pruned + KD" in table.healed(lines)


def test_headline_names_the_first_point_at_the_target() -> None:
    line = {"settings": {"run": "pruned + KD", "seed": 0, "tokens": 300}}
    line["result"] = {"curve": [[0, 5.0], [100, 4.0], [200, 3.9]], "loss": 3.9}
    long = {"settings": {"tokens": 1000}, "result": {"loss": 4.0, "bits_per_byte": 1.0, "curve": [[500, 4.5]]}}
    assert "| 0 | 100 (10x fewer) | 3.900 | not in 1,000 |" in table.headline([line], [long])
    long["result"] |= {"loss": 3.0, "curve": [[500, 4.5], [600, 3.9]]}
    assert "| 0 | not in 300 | 3.900 | 600 (2x more) |" in table.headline([line], [long])


def test_passages_are_the_texts_own_and_differ_by_seed(bench: Bench, tmp_path: Path) -> None:
    a = write_passages(bench.data, 0, 2000, tmp_path / "a.txt").read_text()
    assert a == write_passages(bench.data, 0, 2000, tmp_path / "b.txt").read_text()
    assert len(a) >= 2000 * 4.2 and set(a.split()) <= {"the", "cat", "sat", "on", "a", "mat"}


def test_missing_text_is_said(tmp_path: Path, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    places = f"--parent {bench.parent} --data {tmp_path / 'none'} --work {tmp_path} --results {tmp_path}"
    with pytest.raises(SystemExit):
        main(["oneshot", *places.split()])
    assert "SECATEUR_DATA" in capsys.readouterr().err


def test_every_experiment_names_its_units_apart(bench: Bench) -> None:
    for module in (oneshot, healing, budget, axes):
        names = [u.name for u in module.units(bench, [0, 1], ["45", "60"])]
        assert len(names) == len(set(names)) > 1
