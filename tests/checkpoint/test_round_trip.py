"""What the safetensors library writes we read, and what we write it reads, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from secateur.checkpoint import (
    CODES,
    DTYPES,
    TensorSpec,
    TensorStore,
    plan_shards,
    publish,
    read_config,
    write_json,
    write_tensors,
)
from secateur.errors import CheckpointError
from tests.checkpoint import tiny

SHAPES = [(), (0,), (3, 0, 2), (1,), (5,), (3, 4), (2, 3, 4, 5)]


def random_tensor(dtype: torch.dtype, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    numel = torch.Size(shape).numel()
    raw = torch.randint(0, 256, (numel * dtype.itemsize,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape) if numel else torch.empty(shape, dtype=dtype)


def all_tensors(codes: list[str]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"{code}.{'x'.join(map(str, shape))}": random_tensor(DTYPES[code][0], shape, generator)
        for code in codes
        for shape in SHAPES
    }


def specs_of(tensors: dict[str, torch.Tensor]) -> list[TensorSpec]:
    return [TensorSpec(name, CODES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()]


# The library writes every dtype we know but the exponent-only F8_E8M0.
LIBRARY_CODES = [code for code in DTYPES if code != "F8_E8M0"]


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    tensors = all_tensors(LIBRARY_CODES)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with TensorStore.open(tmp_path) as store:
        assert store.tensors.keys() == tensors.keys()
        assert store.total_bytes == sum(tensor.nbytes for tensor in tensors.values())
        for name, tensor in tensors.items():
            read = store.read(name)
            assert (read.dtype, read.shape, tiny.bits(read)) == (tensor.dtype, tensor.shape, tiny.bits(tensor))


@pytest.mark.parametrize("shard_bytes", [1, 100, 1000, 10**9])
def test_the_library_reads_what_we_write(tmp_path: Path, shard_bytes: int) -> None:
    tensors = all_tensors(LIBRARY_CODES)
    write_tensors(tmp_path, specs_of(tensors), lambda spec: tensors[spec.name], shard_bytes=shard_bytes)
    read: dict[str, torch.Tensor] = {}
    for path in tmp_path.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
        read |= load_file(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (read[name].dtype, read[name].shape, tiny.bits(read[name])) == (
            tensor.dtype,
            tensor.shape,
            tiny.bits(tensor),
        )


def test_bytes_equal_those_of_the_library(tmp_path: Path) -> None:
    tensors = dict(sorted(all_tensors(["BF16"]).items()))
    save_file(tensors, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    write_tensors(tmp_path, specs_of(tensors), lambda spec: tensors[spec.name])
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


@pytest.mark.parametrize("shard_bytes", [1, 100, 10**9])
def test_our_own_round_trip_with_slabs(tmp_path: Path, shard_bytes: int) -> None:
    tensors = all_tensors(list(DTYPES))

    def produce(spec: TensorSpec) -> torch.Tensor | Iterator[torch.Tensor]:
        tensor = tensors[spec.name]
        return iter(tensor.split(2)) if spec.shape and spec.shape[0] else tensor

    seen: list[int] = []
    write_tensors(tmp_path, specs_of(tensors), produce, shard_bytes=shard_bytes, progress=seen.append)
    store = TensorStore.open(tmp_path)
    assert sum(seen) == store.total_bytes
    assert len(store.files) == len(plan_shards(specs_of(tensors), shard_bytes))
    for name, tensor in tensors.items():
        assert tiny.bits(store.read(name)) == tiny.bits(tensor)
        if tensor.dim() and tensor.shape[0] > 1:
            assert tiny.bits(store.read_rows(name, 1, tensor.shape[0])) == tiny.bits(tensor[1:])


def test_every_tensor_starts_at_a_multiple_of_its_element_size(tmp_path: Path) -> None:
    tensors = all_tensors(list(DTYPES))
    write_tensors(tmp_path, specs_of(tensors), lambda spec: tensors[spec.name], shard_bytes=300)
    for info in TensorStore.open(tmp_path).tensors.values():
        assert info.begin % DTYPES[info.dtype][1] == 0


def test_a_tensor_larger_than_a_shard_has_one_of_its_own() -> None:
    specs = [TensorSpec("a", "U8", (4,)), TensorSpec("b", "U8", (50,)), TensorSpec("c", "U8", (4,))]
    shards = plan_shards(specs, 10)
    assert [[spec.name for spec in shard.specs] for shard in shards] == [["a"], ["b"], ["c"]]
    assert [shard.file for shard in shards] == [f"model-0000{at}-of-00003.safetensors" for at in (1, 2, 3)]


@pytest.mark.parametrize(
    "made",
    [
        torch.zeros(2, 3),
        torch.zeros(3, 2, dtype=torch.float64),
        torch.zeros(3, 2, device="meta"),
        [torch.zeros(2, 2)],
        [torch.zeros(2, 2), torch.zeros(2, 2)],
        [torch.zeros(3, 1)],
        [torch.zeros(3)],
        [],
    ],
)
def test_what_is_produced_must_be_what_was_announced(tmp_path: Path, made: torch.Tensor | list[torch.Tensor]) -> None:
    with pytest.raises(CheckpointError, match="tensor 'w'"):
        write_tensors(
            tmp_path,
            [TensorSpec("w", "F32", (3, 2))],
            lambda _: made if isinstance(made, torch.Tensor) else iter(made),
        )


@pytest.mark.parametrize("shard_bytes", [20_000, 10**9])
def test_transformers_loads_what_we_write(tmp_path: Path, shard_bytes: int) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        dtype="bfloat16",
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "theirs")
    theirs = TensorStore.open(tmp_path / "theirs")
    specs = [TensorSpec(info.name, info.dtype, info.shape) for info in theirs.tensors.values()]
    with publish(tmp_path / "ours") as staging:
        write_tensors(staging, specs, lambda spec: theirs.read(spec.name), shard_bytes=shard_bytes)
        write_json(staging / "config.json", read_config(tmp_path / "theirs"))
    assert len(TensorStore.open(tmp_path / "ours").files) == len(plan_shards(specs, shard_bytes))
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    for name, tensor in model.state_dict().items():
        assert tiny.same(loaded.state_dict()[name], tensor)
