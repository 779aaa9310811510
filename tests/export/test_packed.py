"""Packed checkpoints: smaller on disk, back to the last bit, and what is wrong with one is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from secateur.checkpoint import CODES, TensorSpec, publish, write_json, write_tensors
from secateur.errors import CheckpointError, UsageError
from secateur.export.packed import FOLDER, MANIFEST, Entry, expand, seal
from secateur.model import Model, open_model
from tests.cli.command import secateur
from tests.cli.models import Pool


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def parent(request: pytest.FixtureRequest, pool: Pool) -> Iterator[Model]:
    with open_model(pool.get("llama", dtype=request.param)) as model:
        yield model


def packed(model: Model, out: Path, rank: int = 3) -> dict[str, torch.Tensor]:
    """Pack every MLP matrix as factors; returns the tensors that the standard checkpoint must hold."""
    whole, parts = {n: model.read(n) for n in model.weights.tensors}, dict[str, torch.Tensor]()
    for name in [n for n in whole if "mlp" in n]:
        u, s, vt = torch.linalg.svd(whole[name].double(), full_matrices=False)
        dtype = whole[name].dtype
        held = {"left": (u[:, :rank] * s[:rank])[None].to(dtype), "right": vt[None, :rank].to(dtype)}
        whole[name] = (held["left"][0].double() @ held["right"][0].double()).to(dtype)
        marker = Entry.of("factors", held, whole[name], input_first=False).marker
        parts |= {f"{name}#{part}": t for part, t in held.items()} | {f"{name}#factors": marker}
    plain = {n: t for n, t in whole.items() if f"{n}#factors" not in parts}
    order = [p for n in whole for p in (plain | parts) if p.partition("#")[0] == n]
    specs = [TensorSpec(n, CODES[(plain | parts)[n].dtype], tuple((plain | parts)[n].shape)) for n in order]
    with publish(out) as staging:
        write_tensors(staging, specs, lambda s: (plain | parts)[s.name])
        seal(model, staging)
        write_json(staging / "config.json", model.raw)
    return whole


def size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*.safetensors"))


def test_smaller_on_disk_and_back_to_the_last_bit(parent: Model, tmp_path: Path) -> None:
    want = packed(parent, tmp_path / "small")
    assert size(tmp_path / "small") < 0.7 * size(parent.folder)
    assert not list((tmp_path / "small").glob("*.safetensors")), "a packed folder must not pass for a checkpoint"
    with expand(tmp_path / "small", tmp_path / "whole") as model:
        assert list(model.weights.tensors) == list(parent.weights.tensors), "the parent's order"
        for name, tensor in want.items():
            got = model.read(name)
            assert got.dtype == tensor.dtype and torch.equal(got, tensor), name


def test_the_verb(parent: Model, tmp_path: Path) -> None:
    packed(parent, tmp_path / "small")
    done = secateur("expand", tmp_path / "small", "--out", tmp_path / "whole")
    assert done.code == 0 and (tmp_path / "whole" / "model.safetensors").is_file()
    again = secateur("expand", tmp_path / "whole", "--out", tmp_path / "again")
    assert again.code == 2 and MANIFEST in again.err and not (tmp_path / "again").exists()


def test_a_changed_factor_is_found(parent: Model, tmp_path: Path) -> None:
    packed(parent, tmp_path / "small")
    file = tmp_path / "small" / FOLDER / "model.safetensors"
    held = load_file(file)
    name = next(n for n in held if n.endswith("#left"))
    held[name][0, 0, 0] *= 2
    save_file(held, file)
    with pytest.raises(CheckpointError, match=name.partition("#")[0].replace(".", r"\.")):
        expand(tmp_path / "small", tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda m: m | {"packed": 2}, CheckpointError, "version 2"),
        (lambda m: {"packed": 1}, CheckpointError, "manifest"),
        (lambda m: {"packed": 1, "tensors": {"x": {"format": "factors"}}}, CheckpointError, "manifest"),
        (lambda m: {"packed": 1, "tensors": {n: e | {"format": "zip"} for n, e in m["tensors"].items()}},
         CheckpointError, "'zip'"),
    ],
)  # fmt: skip
def test_manifests_that_cannot_be_used(parent: Model, tmp_path: Path, change, error, says: str) -> None:
    packed(parent, tmp_path / "small")
    path = tmp_path / "small" / MANIFEST
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(error, match=says):
        expand(tmp_path / "small", tmp_path / "whole")


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no packed checkpoint"):
        expand(tmp_path, tmp_path / "whole")


def test_parts_that_do_not_give_the_tensor_are_refused() -> None:
    with pytest.raises(CheckpointError, match="factors"):
        Entry.of(
            "factors", {"left": torch.ones(1, 4, 1), "right": torch.ones(1, 1, 4)}, torch.zeros(4, 4), input_first=False
        )


def test_matrices_stored_input_first() -> None:
    left, right = torch.randn(1, 5, 2), torch.randn(1, 2, 3)
    whole = (left[0].double() @ right[0].double()).float().T.contiguous()
    entry = Entry.of("factors", {"left": left, "right": right}, whole, input_first=True)
    assert entry.shape == (3, 5)
