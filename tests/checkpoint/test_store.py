"""Which files a folder's tensors may come from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from secateur.checkpoint import TensorSpec, TensorStore, write_tensors
from secateur.errors import CheckpointError
from tests.checkpoint import tiny


def hub_snapshot(cache: Path, *, shared: bool) -> Path:
    """A checkpoint as the hub client lays it out: links to blobs, which may link on to the store repositories share."""
    repository = cache / "models--org--name"
    snapshot, blobs = repository / "snapshots" / "0123abcd", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    tiny.write(snapshot, shard_bytes=40)
    for path in list(snapshot.iterdir()):
        blob = blobs / (tiny.fingerprint(snapshot)[path.name])
        if shared:
            stored = cache / "blobs" / "00" / f"{len(list(blobs.iterdir())):064x}"
            stored.parent.mkdir(parents=True, exist_ok=True)
            path.rename(stored)
            blob.symlink_to(os.path.relpath(stored, blobs))
        else:
            path.rename(blob)
        path.symlink_to(Path("../../blobs") / blob.name)
    return snapshot


@pytest.mark.parametrize("shared", [False, True])
def test_links_of_a_hub_cache_are_followed(tmp_path: Path, shared: bool) -> None:
    assert tiny.holds(hub_snapshot(tmp_path, shared=shared), tiny.tensors())


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    tiny.write(tmp_path / "elsewhere")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to("../elsewhere/model.safetensors")
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        TensorStore.open(folder)


def test_a_snapshot_may_not_link_past_its_blobs(tmp_path: Path) -> None:
    snapshot = hub_snapshot(tmp_path / "cache", shared=False)
    tiny.write(tmp_path / "elsewhere", shard_bytes=40)
    shard = next(snapshot.glob("*-00001-*"))
    shard.unlink()
    shard.symlink_to(tmp_path / "elsewhere" / shard.name)
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        TensorStore.open(snapshot)


def test_links_within_the_folder_and_to_the_folder_are_fine(tmp_path: Path) -> None:
    tiny.write(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "data")
    (tmp_path / "model" / "model.safetensors").symlink_to("data")
    (tmp_path / "link").symlink_to("model")
    assert tiny.holds(tmp_path / "link", tiny.tensors())


@pytest.mark.parametrize("target", ["missing", "model.safetensors"])
def test_dangling_and_circular_links(tmp_path: Path, target: str) -> None:
    (tmp_path / "model.safetensors").symlink_to(target)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        TensorStore.open(tmp_path)


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        TensorStore.open(tmp_path)


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="not a regular file"):
        TensorStore.open(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickles_are_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02}.")
    with pytest.raises(CheckpointError, match=r"(?s)pickles.*save_pretrained.*refs/pr"):
        TensorStore.open(tmp_path)


def test_other_safetensors_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"(?s)adapter_model\.safetensors.*merged"):
        TensorStore.open(tmp_path)


def test_no_weights_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights"):
        TensorStore.open(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        TensorStore.open(tmp_path / "missing")


def test_a_shard_is_missing(tmp_path: Path) -> None:
    tiny.write(tmp_path, shard_bytes=40)
    next(tmp_path.glob("*-00002-*")).unlink()
    with pytest.raises(CheckpointError, match=r"00002.*is missing"):
        TensorStore.open(tmp_path)


def test_the_same_tensor_in_two_shards(tmp_path: Path) -> None:
    tiny.write(tmp_path, shard_bytes=40)
    first, second = sorted(tmp_path.glob("*.safetensors"))[:2]
    second.write_bytes(first.read_bytes())
    with pytest.raises(CheckpointError, match="is in both"):
        TensorStore.open(tmp_path)


@pytest.mark.parametrize(
    "name", ["x/model.safetensors", "./m.safetensors", "../model/m.safetensors", "a\\m.safetensors", "\0.safetensors"]
)
def test_shards_have_plain_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="expected a plain name inside the folder"):
        TensorStore.open(tmp_path)


def test_a_file_that_changes_under_us_is_noticed(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    store = TensorStore.open(tmp_path)
    path = tmp_path / "model.safetensors"
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(CheckpointError, match="changed"):
        store.read("b.bias")


def test_unknown_names_and_rows(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    store = TensorStore.open(tmp_path)
    with pytest.raises(CheckpointError, match=r"(?s)a\.wieght.*a\.weight"):
        store.read("a.wieght")
    for start, stop in [(-1, 2), (2, 1), (0, 5)]:
        with pytest.raises(CheckpointError, match="rows"):
            store.read_rows("a.weight", start, stop)
    with pytest.raises(CheckpointError, match="rows"):
        store.read_rows("c.scale", 0, 1)


def test_a_read_tensor_belongs_to_its_reader(tmp_path: Path) -> None:
    """Recycled memory must never be handed out while a tensor, or a view of one, still uses it."""
    made = {f"t{at}": torch.full((1 << 18,), float(at)) for at in range(8)}
    write_tensors(tmp_path, [TensorSpec(name, "F32", (1 << 18,)) for name in made], lambda spec: made[spec.name])
    store = TensorStore.open(tmp_path)
    kept = [store.read(name)[5:7] for name in ("t0", "t1", "t2")]
    for name in ("t3", "t4", "t5", "t6", "t7"):
        read = store.read(name)
        assert torch.equal(read, made[name])
        read.mul_(-1)
        del read
    assert [view.tolist() for view in kept] == [[float(at)] * 2 for at in range(3)]
    assert torch.equal(store.read("t7"), made["t7"])


def test_metadata_that_utf8_cannot_spell(tmp_path: Path) -> None:
    header = b'{"__metadata__":{"\\ud800":"pt"}}'
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="UTF-8"):
        TensorStore.open(tmp_path)
