"""Packed checkpoints against the compressed-tensors library itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from secateur.checkpoint.quantized import is_packed, open_quantized, pack, unpack
from secateur.errors import CheckpointError

library = pytest.importorskip(
    "compressed_tensors.compressors.pack_quantized.base", reason="the extra 'export' is not installed"
)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("shape", [(3, 32), (5, 40), (2, 7), (1, 100)])
def test_packing_is_the_librarys(bits: int, shape: tuple[int, int]) -> None:
    codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), shape, dtype=torch.int8)
    words = library.pack_to_int32(codes, bits)
    assert torch.equal(pack(codes, bits), words) and torch.equal(unpack(words, bits, shape[1]), codes)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_the_library_compresses_is_read_dense(symmetric: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    weights = QuantizationArgs(num_bits=4, type="int", symmetric=symmetric, strategy="group", group_size=8)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    scale = torch.rand(12, 5).to(dtype) + 0.1
    state = {"weight": torch.randn(12, 40).to(dtype), "weight_scale": scale}
    state["weight_zero_point"] = torch.randint(-8, 8, (12, 5), dtype=torch.int8) * (not symmetric)
    parts = library.PackedQuantizationCompressor.compress(state, scheme)
    want = library.PackedQuantizationCompressor.decompress(parts, scheme)["weight"]
    save_file({f"a.{n}": t for n, t in parts.items()} | {"b.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    quantization = _config(4)
    assert is_packed(quantization)
    store = open_quantized(tmp_path, quantization)
    assert set(store.tensors) == {"a.weight", "b.weight"} and store.tensors["a.weight"].shape == (12, 40)
    assert torch.equal(store.read("a.weight"), want) and want.dtype == dtype
    assert torch.equal(store.read_rows("a.weight", 3, 7), want[3:7]) and store.read("b.weight").sum() == 2


def _config(bits: int, **weights: object) -> dict[str, object]:
    group = {"targets": ["Linear"], "weights": {"num_bits": bits, "type": "int", "symmetric": True, **weights}}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": group}}


@pytest.mark.parametrize(
    "broken",
    [
        {"format": "float-quantized"},
        {"quant_method": "gptq"},
        {"config_groups": {"a": {"weights": {"num_bits": 8, "type": "float"}}}},
        {"config_groups": {"a": {"weights": {"num_bits": 4, "type": "int", "actorder": "group"}}}},
        {"config_groups": {"a": {"weights": {"num_bits": 4, "type": "int"}, "input_activations": {"num_bits": 8}}}},
        {"config_groups": None},
    ],
)
def test_other_formats_are_not_read(broken: dict[str, object]) -> None:
    assert is_packed(_config(4)) and not is_packed({**_config(4), **broken})
    assert not is_packed(None) and not is_packed("int4")


@pytest.mark.parametrize("lost", ["weight_scale", "weight_shape", "bits", "words", "groups"])
def test_parts_that_do_not_fit(lost: str, tmp_path: Path) -> None:
    parts = {
        "a.weight_packed": pack(torch.zeros(4, 64, dtype=torch.int8), 4)[:, : 7 if lost == "words" else 8].contiguous(),
        "a.weight_scale": torch.ones(4, 3 if lost == "groups" else 2),
        "a.weight_shape": torch.tensor([4, 64]),
    }
    parts.pop(f"a.{lost}", None)
    save_file(parts, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match=r"packed tensor"):
        open_quantized(tmp_path, _config(3 if lost == "bits" else 4))
