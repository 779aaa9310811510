"""A checkpoint in, a GGUF file for llama.cpp out: one tensor in memory at a time, whole or not at all."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.anatomy import expr
from secateur.checkpoint import require_space
from secateur.checkpoint.files import disk_error
from secateur.errors import CheckpointError, InexpressibleError, UsageError
from secateur.export.gguf.declaration import Gguf
from secateur.export.gguf.families import GGUF
from secateur.export.gguf.plan import Made, Values, differences, fields, planned
from secateur.export.gguf.tokenizer import add_tokenizer
from secateur.export.gguf.types import check_type, coded, kept_codes, type_of
from secateur.model import Model

Progress = Callable[[int, int], None]
_PER_BLOCK = {"q8_0": 34, "q5_1": 24, "q5_0": 22, "q4_1": 20, "q4_0": 18}
_PER_ENTRY = {"f32": 4, "f16": 2, "bf16": 2}


@dataclass(frozen=True, slots=True)
class Written:
    """What lies in the file. ``types``: type -> tensors; ``kept``: linears whose packed codes were taken over;
    ``differences``: what llama.cpp computes otherwise than transformers."""

    path: Path
    architecture: str
    nbytes: int
    types: dict[str, int]
    kept: int
    tokenizer: str
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    made: Made
    shape: tuple[int, ...]
    type: str
    bits: int | None

    @property
    def nbytes(self) -> int:
        count = int(np.prod(self.shape))
        return count // 32 * _PER_BLOCK[self.type] if self.type in _PER_BLOCK else count * _PER_ENTRY[self.type]


def declared(model: Model) -> Gguf:
    """The declaration that fits. Raises InexpressibleError for what llama.cpp does not know."""
    family = model.anatomy.family.model_type
    if family not in GGUF:
        raise InexpressibleError(f"no GGUF declaration for {family}", hint=f"there is one for {', '.join(GGUF)}")
    found = next((g for g in GGUF[family] if expr.evaluate(g.when, Values(model.anatomy))), None)
    if found is None:
        raise InexpressibleError(f"{family}: llama.cpp has no architecture declared here for this config")
    return found


def write_gguf(
    model: Model,
    out: Path,
    *,
    type: str = "f16",
    pre: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Write ``model`` to the file ``out``. ``type``: of matrices, see :mod:`secateur.export.gguf.types`.

    Raises InexpressibleError for models that llama.cpp cannot hold, UsageError for what cannot be used, before anything
    is written; CheckpointError for the disk.
    """
    if importlib.util.find_spec("gguf") is None:
        raise UsageError("GGUF files need the package gguf", hint='pip install "secateur[export]"')
    if out.exists() and not (overwrite and out.is_file()):
        raise UsageError(f"{out}: exists", hint="choose another file, or give --overwrite")
    said, wanted = declared(model), check_type(type)
    entries = [_entry(model, made, wanted) for made in planned(model.anatomy, said)]
    require_space(out.parent, sum(e.nbytes for e in entries))
    partial = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tokenizer = _write(model, said, entries, partial, pre, wanted, progress)
        partial.replace(out)
    except OSError as cause:
        raise disk_error(cause, out) from cause
    finally:
        partial.unlink(missing_ok=True)
    types = dict(Counter(e.type for e in entries))
    kept = sum(e.bits is not None for e in entries)
    return Written(out, said.arch, out.stat().st_size, types, kept, tokenizer, differences(model.anatomy, said))


def _entry(model: Model, made: Made, wanted: str) -> _Entry:
    shape = tuple(made.build(lambda n: torch.empty(model.weights.tensors[n].shape, device="meta")).shape)
    kept = kept_codes(model.store, made)
    if kept is not None:
        return _Entry(made, shape, "q4_0" if kept[0].bits <= 4 else "q8_0", kept[0].bits)
    return _Entry(made, shape, type_of(made, shape, wanted), None)


def _write(
    model: Model, said: Gguf, entries: list[_Entry], path: Path, pre: str | None, wanted: str, progress: Progress | None
) -> str:
    import gguf

    writer = gguf.GGUFWriter(path, said.arch)
    writer.add_name(Path(model.source).name or said.arch)
    writer.add_block_count(model.anatomy.n_layers)
    writer.add_file_type(_file_type(gguf, wanted))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in fields(model.anatomy, said).items():
        _add(writer, f"{said.arch}.{key}", value)
    tokenizer = add_tokenizer(writer, model.folder, model.anatomy.sizes["v"], pre)
    for e in entries:
        code = gguf.GGMLQuantizationType[e.type.upper()]
        dtype = {"f32": np.float32, "f16": np.float16}.get(e.type, np.uint8)
        shape = e.shape if e.type in ("f32", "f16") else gguf.quant_shape_to_byte_shape(e.shape, code)
        writer.add_tensor_info(e.made.name, shape, np.dtype(dtype), e.nbytes, raw_dtype=code)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    done, total = 0, sum(e.nbytes for e in entries)
    for e in entries:
        writer.write_tensor_data(_data(model, e, gguf))
        done += e.nbytes
        if progress is not None:
            progress(done, total)
    writer.close()
    return tokenizer


def _data(model: Model, e: _Entry, gguf: Any) -> NDArray[Any]:
    if e.bits is not None:
        return coded(model.store, e.made, e.bits)  # type: ignore[arg-type]  # kept codes come from such a store
    tensor = e.made.build(model.read).float().numpy()
    if not np.isfinite(tensor).all() or (e.type == "f16" and np.abs(tensor).max(initial=0) > np.finfo(np.float16).max):
        raise CheckpointError(f"tensor {e.made.name!r} does not fit into {e.type}", hint="use --type bf16 or f32")
    data: NDArray[Any] = gguf.quantize(tensor, gguf.GGMLQuantizationType[e.type.upper()])
    return data


def _file_type(gguf: Any, wanted: str) -> int:
    name = {"f32": "ALL_F32"}.get(wanted, f"MOSTLY_{wanted.upper()}")
    return int(gguf.LlamaFileType[name])


def _add(writer: Any, key: str, value: Any) -> None:
    """A field under the type that llama.cpp reads: bool, unsigned, float, or an array of unsigned."""
    if isinstance(value, bool | np.bool_):
        writer.add_bool(key, bool(value))
    elif isinstance(value, list):
        writer.add_array(key, [int(v) for v in value])
    elif isinstance(value, int | np.integer):
        writer.add_uint32(key, int(value))
    else:
        writer.add_float32(key, float(value))
