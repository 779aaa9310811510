"""Closed-form costs against checkpoints, real caches and counted operations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from secateur.model import Model, open_model
from secateur.pruning.budget import cost
from secateur.search.resources import RESOURCES, Workload
from tests.contract.harness import Parent, ids
from tests.contract.rows import ROWS, VOCAB

FAMILIES = [
    "nemotron_h", "mamba2", "mamba", "jamba", "zamba2", "zamba2@adapters", "falcon_h1", "bamba", "granitemoehybrid",
    "qwen3_next", "kimi_linear", "lfm2", "gemma3_text", "mistral", "llama", "gpt2", "mixtral",
]  # fmt: skip
FAMILIES = [n for n in FAMILIES if n in ROWS]
CACHED = [n for n in FAMILIES if ROWS[n].cached]


def tiny(name: str, **over: Any) -> Any:
    """The model of a row in float32 and plain attention, random weights."""
    torch.manual_seed(0)
    row = ROWS[name]
    config = AutoConfig.for_model(
        row.model_type or name.partition("@")[0], **{"vocab_size": VOCAB, **row.config, **over}
    )
    config._attn_implementation = "eager"
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def model_of(made: Any, folder: Path) -> Model:
    """The config of ``made``, without weights."""
    folder.mkdir(exist_ok=True)
    raw = {**made.config.to_dict(), "dtype": "float32"}
    raw["architectures"] = [type(made).__name__]
    (folder / "config.json").write_text(json.dumps(raw))
    return open_model(folder)


def take(model: Model, resource: str, layers: tuple[int, ...] | None = None, **workload: int) -> Any:
    anatomy = model.anatomy
    kept = frozenset(range(anatomy.n_layers) if layers is None else layers)
    return RESOURCES[resource].meter(model, Workload(**workload))(anatomy.sizes, kept)


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_and_bytes_are_those_of_the_files(name: str, parents: dict[str, Parent]) -> None:
    with open_model(parents[name].folder) as model:
        tensors = parents[name].tensors
        assert take(model, "params") == sum(t.numel() for n, t in tensors.items() if n in model.anatomy.tensors)
        assert take(model, "bytes") == sum(t.nbytes for n, t in tensors.items() if n in model.anatomy.tensors)


def stored(model: Model, kept: set[int]) -> int:
    """Bytes of the tensors that stay with the layers ``kept``, one by one."""
    anatomy, total = model.anatomy, 0
    for decl in anatomy.tensors.values():
        if "S" in decl.env:
            stays = anatomy.shared_users[decl.env["S"]] in kept
        elif anatomy.family.shared is not None and decl.pattern.startswith(anatomy.family.shared.prefix):
            block = anatomy.block_of(decl.layer or 0)
            stays = any(anatomy.block_of(i) == block for i in kept if i in anatomy.shared_users)
        else:
            stays = decl.layer is None or decl.layer in kept
        total += stays * model.weights.tensors[decl.name].nbytes
    return total


@pytest.mark.parametrize("name", ["nemotron_h", "zamba2", "zamba2@adapters", "llama"])
def test_bytes_follow_the_dtype_of_every_layer(name: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    if name not in ROWS:
        pytest.skip("no such row")
    folder = Path(shutil.copytree(parents[name].folder, tmp_path / "mixed"))
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        odd = {n: t.half() if "layers.1." in n or "list.1." in n or "A_log" in n else t for n, t in tensors.items()}
        save_file(odd, file, {"format": "pt"})
    with open_model(folder) as model:
        for layers in (None, ROWS[name].drops[0]):
            kept = range(model.anatomy.n_layers) if layers is None else layers
            assert take(model, "bytes", layers) == stored(model, set(kept))


@pytest.mark.parametrize("name", FAMILIES)
def test_arrays_of_candidates_cost_what_single_ones_cost(name: str, parents: dict[str, Parent]) -> None:
    with open_model(parents[name].folder) as model:
        anatomy = model.anatomy
        layers = ROWS[name].drops[0] if ROWS[name].drops else tuple(range(anatomy.n_layers))
        hidden = np.array([anatomy.sizes["d"], anatomy.sizes["d"] // 2])
        for resource in RESOURCES.values():
            meter = resource.meter(model, Workload(context=9, batch=2))
            both = np.broadcast_to(meter({**anatomy.sizes, "d": hidden}, frozenset(layers)), (2,))
            for value, d in zip(both, hidden, strict=True):
                assert value == meter({**anatomy.sizes, "d": int(d)}, frozenset(layers))
        sizes = {**anatomy.sizes, "d": int(hidden[1])}
        plain = cost(model, sizes, layers)
        got = {n: RESOURCES[n].meter(model, Workload(context=1))(sizes, frozenset(layers)) for n in RESOURCES}
        assert got["params"] == plain.parameters and got["bytes"] == plain.bytes == 8 * plain.parameters  # all float64
        assert got["cache"] == plain.kv_per_token + plain.ssm_state + plain.conv_state


def held(layers: list[Any]) -> int:
    """Bytes in a real cache after a prefill."""
    tensors = [t for l in layers for t in (getattr(l, "keys", None), getattr(l, "values", None))]  # noqa: E741
    for layer in layers:
        tensors += [*getattr(layer, "recurrent_states", {}).values(), *getattr(layer, "conv_states", {}).values()]
    return sum(t.nbytes for t in tensors if t is not None)


@pytest.mark.parametrize("name", CACHED)
def test_cache_bytes_are_those_of_the_real_tensors(name: str, tmp_path: Path) -> None:
    made = tiny(name)
    model = model_of(made, tmp_path)
    with torch.no_grad():
        out = made(ids(5), use_cache=True)  # shorter than every window
    cache = getattr(out, "cache_params", None) or getattr(out, "past_key_values", None)
    if cache is None:
        pytest.skip("this class keeps its cache inside the modules")
    assert held(cache.layers) == take(model, "cache", context=5, batch=2)


@pytest.mark.parametrize("name", ["mistral", "gemma3_text", "gpt_oss"])
def test_a_step_behind_a_window_reads_as_many_keys_as_are_counted(name: str, tmp_path: Path) -> None:
    made = tiny(name)
    model = model_of(made, tmp_path)
    read: list[int] = []
    with torch.no_grad():
        out = made(ids(20), use_cache=True)
        for layer in out.past_key_values.layers:
            plain = layer.update

            def update(*args: Any, plain: Any = plain, **kwargs: Any) -> Any:
                keys, values = plain(*args, **kwargs)
                read.append(keys.nbytes + values.nbytes)
                return keys, values

            layer.update = update
        made(ids(1), past_key_values=out.past_key_values, use_cache=True)
    counted = take(model, "cache", context=21, batch=2)
    assert sum(read) == counted < 21 * take(model, "cache", context=1, batch=2)


#: Families whose decoding is matrix products only, which torch counts.
COUNTED = [n for n in ("llama", "gpt2", "mistral", "gemma3_text", "mixtral", "gpt_oss", "qwen3", "opt") if n in ROWS]


@pytest.mark.parametrize("name", COUNTED)
def test_decoding_takes_the_operations_torch_counts(name: str, tmp_path: Path) -> None:
    made = tiny(name)
    made.config._experts_implementation = "eager"
    model = model_of(made, tmp_path)
    with torch.no_grad():
        out = made(ids(8)[:1], use_cache=True)
        with FlopCounterMode(display=False) as counter:
            made(ids(1)[:1], past_key_values=out.past_key_values, use_cache=True)
    assert counter.get_total_flops() == take(model, "decode_flops", context=9)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_takes_what_its_tokens_take_one_by_one(name: str, parents: dict[str, Parent]) -> None:
    with open_model(parents[name].folder) as model:
        one = [take(model, "decode_flops", context=t) for t in range(1, 24)]
        tied = [g for g in model.anatomy.groups if "v" in g.layout.axes and g.layers is None]
        head = 2 * model.anatomy.sizes["v"] * model.anatomy.sizes.get("dw", model.anatomy.sizes["d"])
        assert tied
        assert take(model, "prefill_flops", context=23) == sum(one) - 22 * head
        assert take(model, "prefill_flops", context=23, batch=3) == 3 * take(model, "prefill_flops", context=23)
