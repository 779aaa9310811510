"""Strategies that damage a checkpoint the way converters, downloads, editors and enemies do."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

#: Replacements for a JSON value: wrong types, signs, magnitudes, near misses, junk.
JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [
        None, True, False, -1, 0, 1, 2, 3, 5, 7, 23, 25, 48, 1000, 2**31, 2**62, 10**30, -(10**30), 0.5, 24.0, -0.0,
        1e-300,
        float("nan"), float("inf"), "", "x", "24", "float32", "int8", "\u2028", "a" * 5000, [], [0], [1, 2], [None],
        ["x"],
        [[[[[]]]]], {}, {"a": 1}, {"24": {"b": [None, {"c": float("nan")}]}}, ["linear_attention"] * 5, ["mlp"] * 5,
        ["full_attention"] * 4, ["moe"] * 5, [1.5] * 5, [["mlp"]] * 5, {"__float__": "NaN"}, {"rope_type": "junk"},
    ]
)  # fmt: skip

#: Fields that other kinds of checkpoint have, or that contradict what is there.
EXTRA: st.SearchStrategy[tuple[str, Any]] = st.sampled_from(
    [
        ("quantization_config", {"quant_method": "gptq", "bits": 4}), ("quantization_config", "int4"),
        ("quantization_config", []), ("quantization_config", {"quant_method": None}),
        ("auto_map", {"AutoConfig": "evil.py--Evil"}), ("auto_map", "evil"), ("text_config", {"hidden_size": 7}),
        ("text_config", 3), ("num_hidden_layers", 3), ("num_hidden_layers", 10**9), ("n_layer", 2), ("num_layers", -4),
        ("layer_types", ["full_attention"]), ("layer_types", 5), ("layers_block_type", ["mamba"] * 4),
        ("hybrid_override_pattern", "M-*M-"), ("hybrid_override_pattern", "M?"), ("hybrid_override_pattern", 7),
        ("head_dim", 5), ("rope_parameters", []), ("rope_scaling", {"type": "yarn", "factor": "x"}), ("rope_theta",
        "x"),
        ("model_type", "llama"), ("model_type", "mamba2"), ("model_type", "bert"), ("model_type", "t5"),
        ("model_type", "no_such_model"), ("model_type", "../llama"), ("model_type", ["llama"]),
        ("torch_dtype", "int8"), ("dtype", 32), ("dtype", "float16"), ("tie_word_embeddings", True),
        ("tie_word_embeddings", False), ("tie_word_embeddings", "no"), ("id2label", {"a": "b"}), ("id2label", 3),
        ("num_labels", -2), ("pad_token_id", 10**6), ("eos_token_id", ["x"]), ("attribute_map",
        {"hidden_size": "vocab_size"}),
        ("__class__", "x"), ("architectures", 3), ("architectures", ["Evil"]), ("transformers_version", 5),
        ("sliding_window", -3), ("attn_implementation", "evil"), ("_attn_implementation", "evil"), ("problem_type",
        "x"),
        ("return_dict", "x"), ("vocab_size", 2**24), ("num_local_experts", 10**9), ("n_routed_experts", 10**9),
        ("num_experts_per_tok", 100), ("chunk_size", 0), ("rms_norm_eps", -1.0), ("layer_norm_epsilon", "x"),
        ("n_groups", 0),
        ("mlp_hidden_act", "gone"), ("hidden_act", None), ("dtype", "auto"), ("", ""), ("to_dict", 1), ("from_dict", 1),
    ]
)  # fmt: skip


_NUMBERS = [-7, -1, 0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 23, 25, 47, 64, 1000, 2**20, 2**31, 2**53, 2**62, 10**30]
_WORDS = [
    "silu",
    "relu",
    "default",
    "float64",
    "bfloat16",
    "full_attention",
    "mamba",
    "moe",
    "M",
    "*",
    "E",
    "-",
    "llama",
]


@st.composite
def alike(draw: st.DrawFn, value: Any) -> Any:
    """Another value of the same type: it passes every check of types, and may still make no sense."""
    match value:
        case bool():
            return not value
        case int():
            return draw(st.sampled_from([*_NUMBERS, value + 1, value - 1, value * 2, value // 2]))
        case float():
            return draw(st.sampled_from([0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), value * 2]))
        case str():
            return draw(st.sampled_from(_WORDS))
        case list() if value:
            at = draw(st.integers(0, len(value) - 1))
            changed = draw(st.one_of(st.sampled_from(value), alike(value[at])))
            return draw(
                st.sampled_from([value[:-1], value[1:], value * 2, [], [*value[:at], changed, *value[at + 1 :]]])
            )
        case dict() if value:
            key = draw(st.sampled_from(sorted(value)))
            return {**value, key: draw(alike(value[key]))}
    return draw(JUNK)


@st.composite
def configs(draw: st.DrawFn, config: dict[str, Any]) -> dict[str, Any]:
    """config.json with one to three fields changed, removed, exchanged or added."""
    config = copy.deepcopy(config)
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(sorted(config)))
        value = config[key]
        match draw(st.sampled_from(["alike", "alike", "alike", "replace", "remove", "null", "exchange", "add"])):
            case "remove":
                del config[key]
            case "null":
                config[key] = None
            case "alike":
                config[key] = draw(alike(value))
            case "exchange":
                other = draw(st.sampled_from(sorted(config)))
                config[key], config[other] = config[other], value
            case "add":
                name, extra = draw(EXTRA)
                config[name] = extra
            case _:
                config[key] = draw(JUNK)
    return config


@st.composite
def trees(draw: st.DrawFn, tree: Any) -> Any:
    """Any JSON document with one or two of its nodes replaced, removed, renamed or repeated."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 2))):
        parent, key = tree, None
        while isinstance(parent, dict | list) and parent and (key is None or draw(st.integers(0, 3))):
            if key is not None and (not isinstance(parent[key], dict | list) or not parent[key]):
                break
            parent = parent if key is None else parent[key]
            key = draw(st.sampled_from(sorted(parent)) if isinstance(parent, dict) else st.integers(0, len(parent) - 1))
        if key is None:
            return draw(JUNK)
        match draw(st.sampled_from(["replace", "replace", "remove", "rename", "repeat"])):
            case "remove":
                del parent[key]
            case "rename" if isinstance(parent, dict):
                parent[draw(st.sampled_from(["", "x", "hidden", "model", "0"]))] = parent.pop(key)
            case "repeat" if isinstance(parent, dict):
                parent["again"] = copy.deepcopy(parent[key])
            case "repeat":
                parent.insert(0, copy.deepcopy(parent[key]))
            case _:
                parent[key] = draw(JUNK)
    return tree


@st.composite
def raw_bytes(draw: st.DrawFn, raw: bytes) -> bytes:
    """Bytes cut short, grown, flipped, or with a run of them put elsewhere; the first 200 are hit most often."""
    at = draw(st.integers(0, len(raw)) | st.integers(0, min(200, len(raw))))
    junk = draw(st.binary(min_size=1, max_size=9) | st.sampled_from([b"\xff" * 8, b"\0" * 64, b"[" * 3000]))
    match draw(st.sampled_from(["cut", "grow", "insert", "overwrite", "length"])):
        case "cut":
            return raw[:at]
        case "grow":
            return raw + junk
        case "insert":
            return raw[:at] + junk + raw[at:]
        case "length":
            return draw(st.integers(0, 2**64 - 1) | st.integers(0, 20_000)).to_bytes(8, "little") + raw[8:]
        case _:
            return raw[:at] + junk + raw[at + len(junk) :]


_DTYPES = [torch.int8, torch.int64, torch.float64, torch.float16, torch.bool, torch.float8_e4m3fn, torch.uint8]
_NAMES = [
    "junk", "", "lm_head.bias", "model.layers.99.norm.weight", "model.layers.0.extra.weight", "model.norm.bias",
    "x" * 5000,
    "../x", "model.layers.0", "\u2028", "model.layers.-1.input_layernorm.weight", "transformer.wte.weight", "[red]",
]  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn, held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of one file with one or two missing, renamed, added, or of another dtype, shape or content."""
    held = dict(held)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(held)))
        t = held[name]
        match draw(
            st.sampled_from(["remove", "rename", "add", "dtype", "transpose", "flat", "grow", "empty", "value"])
        ):
            case "remove":
                del held[name]
            case "rename":
                held[draw(st.sampled_from(_NAMES))] = held.pop(name)
            case "add":
                held[draw(st.sampled_from(_NAMES))] = torch.ones(draw(st.sampled_from([(), (1,), (0,), (2, 3)])))
            case "dtype":
                held[name] = t.to(draw(st.sampled_from(_DTYPES)))
            case "transpose":
                held[name] = t.T.contiguous() if t.ndim == 2 else t[None]
            case "flat":
                held[name] = t.reshape(-1)
            case "grow":
                held[name] = torch.cat([t, t[:1]]) if t.ndim else t
            case "empty":
                held[name] = t[:0].clone() if t.ndim else t
            case _ if t.is_floating_point() and t.numel():
                t = t.clone()
                bad = draw(st.sampled_from([float("nan"), float("inf"), float("-inf"), 0.0, 3e38]))
                t.view(-1)[draw(st.integers(0, t.numel() - 1))] = bad
                held[name] = t
            case _:
                del held[name]
    return held


def rewrite(path: Path, changed: dict[str, torch.Tensor]) -> None:
    """Save tensors over a safetensors file."""
    save_file({n: t.contiguous() for n, t in changed.items()}, path, {"format": "pt"})


def read(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def reindex(folder: Path) -> None:
    """Make the index of a sharded checkpoint name what its files hold now."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(folder.glob("model-*.safetensors"))
        weight_map = {name: file.name for file in files for name in load_file(file)}
        index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
