"""Statistics: against brute force, on disk, and over several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from secateur.calibration.stats import Stats, calibrate, load_stats
from secateur.errors import UsageError
from secateur.model import open_model
from tests.contract.harness import Parent, ids
from tests.importance.plain import Watched, measure

FAMILIES = ["nemotron_h", "qwen3_next", "gpt2", "zamba2", "mamba"]


def _places(stats: Stats) -> dict[tuple[int, str, str], dict[str, torch.Tensor]]:
    """(layer, module, side) -> statistic -> vector, of the channels observer."""
    found: dict[tuple[int, str, str], dict[str, torch.Tensor]] = {}
    for key, value in stats.tensors.items():
        layer, name, side, what = key.split("/")
        if name.endswith(".weight"):
            found.setdefault((int(layer), name.removesuffix(".weight"), side), {})[what] = value
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_channel_statistics_equal_brute_force(name: str, parents: dict[str, Parent]) -> None:
    stats = measure(parents[name].folder)
    places = {k: v for k, v in _places(stats).items() if "{S}" not in k[1]}
    watched = Watched(parents[name]).run([place[:2] for place in places])
    assert len(places) >= 2 * parents[name].anatomy.n_layers
    for (layer, module, side), got in places.items():
        a = watched.rows(layer, module, side)
        want = {
            "sum": a.sum((0, 1)),
            "sumsq": (a**2).sum((0, 1)),
            "l2mean": sum(abs(sample).mean(0) ** 2 for sample in a),
        }
        for what, value in want.items():
            assert torch.allclose(got[what], torch.as_tensor(value), rtol=1e-8, atol=1e-10), (layer, module, side, what)


@pytest.mark.parametrize("name", ["nemotron_h", "qwen3_next"])
def test_statistics_do_not_depend_on_the_batch(name: str, parents: dict[str, Parent]) -> None:
    """qwen3_next flattens samples before its shared expert; both families' routers do."""
    one, two = (measure(parents[name].folder, batch=b) for b in (1, 2))
    assert one.tensors.keys() == two.tensors.keys()
    for key, value in one.tensors.items():
        assert torch.allclose(value, two.tensors[key], rtol=1e-9, atol=1e-12), key


def test_block_influence_equals_brute_force(parents: dict[str, Parent]) -> None:
    stats = measure(parents["llama"].folder)
    watched = Watched(parents["llama"])
    before: list[torch.Tensor] = []
    handle = watched.blocks[1].register_forward_pre_hook(lambda m, args: before.append(args[0]))
    watched.run([(1, "")])
    handle.remove()
    after = watched.seen[1, "", "out"]
    want = torch.nn.functional.cosine_similarity(before[0], after, dim=-1).sum()
    assert torch.allclose(stats.tensors["1/block/out/cosine"], want.double())
    assert float(stats.tensors["1/block/out/tokens"]) == after[..., 0].numel()


def test_statistics_survive_the_disk(parents: dict[str, Parent], tmp_path: Path) -> None:
    with open_model(parents["llama"].folder) as model:
        stats = calibrate(model, ids(), about={"text": ["a.txt"], "seed": 3})
        stats.save(tmp_path / "s.safetensors")
        again = load_stats(tmp_path / "s.safetensors", model)
    assert again.about == stats.about and again.tokens == ids().numel()
    assert all(torch.equal(v, again.tensors[k]) for k, v in stats.tensors.items())
    assert [p.name for p in tmp_path.iterdir()] == ["s.safetensors"]


def test_other_files_and_other_models_are_refused(parents: dict[str, Parent], tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    with open_model(parents["llama"].folder) as llama, open_model(parents["gpt2"].folder) as gpt2:
        with pytest.raises(UsageError, match="holds no statistics"):
            load_stats(path, llama)
        path.write_bytes(b"nonsense")
        with pytest.raises(UsageError, match="holds no statistics"):
            load_stats(path, llama)
        save_file({"a": torch.zeros(1)}, path)
        with pytest.raises(UsageError, match="no secateur statistics"):
            load_stats(path, llama)
        calibrate(gpt2, ids()).save(path)
        with pytest.raises(UsageError, match="another model"):
            load_stats(path, llama)


IMPOSSIBLE = {"1d": torch.zeros(3), "none": torch.zeros(0, 4, dtype=torch.long), "range": torch.full((1, 4), 97)}


@pytest.mark.parametrize("windows", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_windows_are_refused(windows: torch.Tensor, parents: dict[str, Parent]) -> None:
    with open_model(parents["llama"].folder) as model, pytest.raises(UsageError):
        calibrate(model, windows)


WORKER = """
import sys, torch
from pathlib import Path
from secateur.calibration.ranks import leave
from secateur.calibration.stats import calibrate
from secateur.model import open_model
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=sys.argv[3], rank=int(sys.argv[4]), world_size=2)
windows = torch.randint(3, 97, (5, 16), generator=torch.Generator().manual_seed(0))
with open_model(sys.argv[1]) as model:
    calibrate(model, windows, batch=1).save(Path(sys.argv[2]))
leave()
"""


def test_two_processes_count_like_one(parents: dict[str, Parent], tmp_path: Path) -> None:
    folder, file = parents["nemotron_h"].folder, tmp_path / "two.safetensors"
    meeting = f"file://{tmp_path}/meeting"
    argv = [sys.executable, "-c", WORKER, str(folder), str(file), meeting]
    running = [subprocess.Popen([*argv, str(rank)]) for rank in range(2)]
    assert [p.wait(timeout=300) for p in running] == [0, 0]
    windows = torch.randint(3, 97, (5, 16), generator=torch.Generator().manual_seed(0))
    with open_model(folder) as model:
        one, two = calibrate(model, windows, batch=1), load_stats(file, model)
    assert one.tensors.keys() == two.tensors.keys() and one.tokens == two.tokens
    for key, value in one.tensors.items():
        assert torch.allclose(value, two.tensors[key], rtol=1e-6, atol=1e-9), key
