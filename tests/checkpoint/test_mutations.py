"""Damaged and hostile files: each ends in a SecateurError or in exactly the tensors that are in them.

The safetensors library is the reference for "in them": what we accept it must accept, and read the same.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from secateur.checkpoint import TensorStore, read_config, read_header, write_json
from secateur.errors import CheckpointError, ConfigError
from tests.checkpoint import tiny

MUTATIONS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)

EVIL_VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 7, 12, 0.5, 1e999, float("nan")),
    *(2**31, 2**62, 2**63 - 1, 2**63, 2**64, 10**400),
    *("", "x", "BF16", "bf16", "F32", "F64", "U8", "F4", "\ud800", "\0", "../../x", "/etc/passwd", "..", "a/b"),
    *([], [0], [-1], [0, 0], [1, 2, 3], [2**62, 2**62, 4], [0, 2**62, 2**62], [0, 24], [24, 0], [0.0, 24.0]),
    *(["0", "24"], [True, 3], [[1]], [1] * 100, {}, {"a": 1}),
]
EVIL: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(EVIL_VALUES), st.integers(), st.lists(st.integers(min_value=-2, max_value=200), max_size=4)
)


def paths(tree: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every node of a JSON tree."""
    found = [here]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found.extend(paths(value, (*here, key)))
    return found


@st.composite
def mutated(draw: st.DrawFn, tree: Any) -> Any:
    """``tree`` with one to three nodes replaced, removed, renamed or duplicated under another name."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(paths(tree)))
        if not place:
            continue
        parent = tree
        for key in place[:-1]:
            parent = parent[key]
        match draw(st.sampled_from(["replace", "replace", "nudge", "remove", "rename", "repeat"])):
            case "nudge" if type(parent[place[-1]]) is int:
                parent[place[-1]] += draw(st.integers(-9, 9))
            case "remove":
                del parent[place[-1]]
            case "rename" if isinstance(parent, dict):
                parent[draw(st.sampled_from(["z", "", "__metadata__", "a.weight", "\ud800"]))] = parent.pop(place[-1])
            case "repeat" if isinstance(parent, dict):
                parent["again"] = copy.deepcopy(parent[place[-1]])
            case _:
                parent[place[-1]] = copy.deepcopy(draw(EVIL))
    return tree


@st.composite
def damaged(draw: st.DrawFn, raw: bytes) -> bytes:
    """``raw`` cut short, grown, flipped, or with one run of bytes put elsewhere."""
    at = draw(st.integers(0, len(raw)))
    junk = draw(st.binary(min_size=1, max_size=16))
    match draw(st.sampled_from(["cut", "grow", "insert", "overwrite", "flip", "length"])):
        case "cut":
            return raw[:at]
        case "grow":
            return raw + junk
        case "insert":
            return raw[:at] + junk + raw[at:]
        case "overwrite":
            return raw[:at] + junk + raw[at + len(junk) :]
        case "length":
            return draw(st.integers(0, 2**64 - 1) | st.integers(0, 2000)).to_bytes(8, "little") + raw[8:]
        case _:
            at = min(at, len(raw) - 1)
            return raw[:at] + bytes([raw[at] ^ (1 << draw(st.integers(0, 7)))]) + raw[at + 1 :]


def check_file(folder: Path, raw: bytes) -> None:
    """Our reader refuses ``raw`` clearly, or agrees with the library about every tensor in it."""
    (folder / "model.safetensors").write_bytes(raw)
    try:
        store = TensorStore.open(folder)
        ours = {name: store.read(name) for name in store.tensors}
    except CheckpointError as error:
        assert str(error).encode("utf-8")
        assert len(str(error)) < 2000
        return
    theirs = load(raw)
    assert ours.keys() == theirs.keys()
    assert all(tiny.same(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("original")
    tiny.write(folder)
    return (folder / "model.safetensors").read_bytes()


@MUTATIONS
@given(data=st.data())
def test_damaged_bytes(tmp_path: Path, original: bytes, data: st.DataObject) -> None:
    check_file(tmp_path, data.draw(damaged(original)))


@MUTATIONS
@given(data=st.data())
def test_lying_headers(tmp_path: Path, original: bytes, data: st.DataObject) -> None:
    size = int.from_bytes(original[:8], "little")
    header = data.draw(mutated(json.loads(original[8 : 8 + size])))
    check_file(tmp_path, tiny.safetensors_bytes(header, original[8 + size :]))


ONE = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"{" + b'"a":{' * 100_000, b"", "nested too deeply"),
        (b"[" * 10_000_000, b"", "starts with"),
        (b'{"a":' + b"9" * 5000 + b"}", b"", "too many digits"),
        (b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,4]}}', b"1234", "NaN"),
        (b'{"\xff":1}', b"", "not UTF-8"),
        (b'{"a":1,"a":2}', b"", "'a' appears twice"),
        (b'{"a":1', b"", "not JSON"),
        (b"\xef\xbb\xbf{}", b"", "starts with"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
        ({"a": ONE, "b": {**ONE, "data_offsets": [2, 6]}}, b"123456", "overlaps"),
        ({"a": ONE, "b": {**ONE, "data_offsets": [5, 9]}}, b"123456789", "hole"),
        ({"a": ONE}, b"12345", "bytes follow"),
        ({"a": ONE}, b"123", "truncated"),
        ({"a": {**ONE, "shape": [5]}}, b"1234", "5 bytes apart"),
        ({"a": {**ONE, "dtype": "F32"}}, b"1234", "16 bytes apart"),
        ({"a": {**ONE, "dtype": "F3"}}, b"1234", "one of F64 F32"),
        ({"a": {**ONE, "shape": [True] * 4}}, b"1234", "whole numbers"),
        ({"a": {**ONE, "shape": [4.0]}}, b"1234", "whole numbers"),
        ({"a": {**ONE, "shape": [-2, -2]}}, b"1234", "whole numbers"),
        ({"a": {**ONE, "shape": [2**40, 2**40, 0]}}, b"1234", "2\\*\\*63 bytes"),
        ({"a": {**ONE, "shape": [1] * 65}}, b"1234", "at most 64"),
        ({"a": {"dtype": "U8", "shape": [4]}}, b"1234", "data_offsets"),
    ],
)
def test_each_lie_is_named(tmp_path: Path, header: object, data: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(tiny.safetensors_bytes(header, data))
    with pytest.raises(CheckpointError, match=message):
        read_header(path)


@pytest.mark.parametrize("raw", [b"", b"1234567", b"\x80\x02}q\x00.", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_safetensors_file(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    with pytest.raises(CheckpointError):
        read_header(path)


@MUTATIONS
@given(data=st.data())
def test_lying_indices(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A neighbour holds the same files: an index that climbs out would find real tensors there."""
    place = tmp_path_factory.mktemp("index")
    expected = tiny.write(place / "model", shard_bytes=40)
    tiny.write(place / "neighbour", shard_bytes=40)
    path = place / "model" / "model.safetensors.index.json"
    raw: bytes
    if data.draw(st.booleans()):
        raw = data.draw(damaged(path.read_bytes()))
    else:
        index = data.draw(mutated(json.loads(path.read_bytes())))
        climb = data.draw(st.sampled_from(["", "", "../neighbour/", "ABSOLUTE/", "./", "x/../"]))
        climb = climb.replace("ABSOLUTE", str(place / "neighbour"))
        weight_map = index.get("weight_map")
        if climb and isinstance(weight_map, dict) and weight_map:
            first = next(iter(weight_map))
            weight_map[first] = f"{climb}{weight_map[first]}"
        raw = json.dumps(index).encode()
    path.write_bytes(raw)
    try:
        store = TensorStore.open(place / "model")
    except CheckpointError as error:
        assert str(error).encode("utf-8")
        return
    assert {file.parent for file in store.files.values()} == {place / "model"}
    # An index that forgets a whole shard with all its tensors agrees with itself; the anatomy misses them later.
    assert store.tensors.keys() == json.loads(raw)["weight_map"].keys()
    assert all(tiny.same(store.read(name), expected[name]) for name in store.tensors)


CONFIG = {
    "model_type": "mamba2",
    "hidden_size": 64,
    "time_step_limit": [0.0, float("inf")],
    "rope_parameters": {"rope_theta": 1e4, "type": "default"},
    "layers": ["mamba", "attention"],
    "name": "naïve",
}


@MUTATIONS
@given(data=st.data())
def test_configs(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "config.json"
    raw = (
        data.draw(damaged(json.dumps(CONFIG, ensure_ascii=False).encode()))
        if data.draw(st.booleans())
        else json.dumps(data.draw(mutated(CONFIG))).encode()
    )
    path.write_bytes(raw)
    try:
        config = read_config(tmp_path)
    except ConfigError as error:
        assert str(error).encode("utf-8")
        return
    write_json(path, config)
    again = read_config(tmp_path)
    assert repr(again) == repr(config) == repr(json.loads(raw))
    assert list(again) == list(config)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[]", "JSON object"),
        (b"{}", "model_type"),
        (b'{"model_type": ""}', "model_type"),
        (b'{"model_type": 3}', "model_type"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"model_type": "x", "a": ' + b"[" * 70 + b"]" * 70 + b"}", "64 levels"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"model_type": "x", "a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"model_type": "x", "a": "\\ud800"}', "surrogate"),
        (b'{"model_type": "\xff"}', "UTF-8"),
        (b" " * (17 << 20), "expected at most"),
    ],
)
def test_each_config_fault_is_named(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(raw)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path)


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_config(tmp_path)
