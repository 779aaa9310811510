"""A checkpoint in fewer bytes, and back: some tensors are stored in parts, the rest as they are.

    config.json, tokenizer, ..     as in any checkpoint
    packed/model.safetensors       plain tensors; "<name>#<part>" and "<name>#<format>" (33 bytes) for those in parts
    packed.json                    for each tensor in parts: format, dtype, shape, sha256 of its bytes when unpacked

Such a folder is no standard checkpoint and does not pretend to be one: no model.safetensors lies beside config.json.
``expand`` writes the standard one, to the last bit, or says which tensor is not what it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from secateur.checkpoint import (
    CODES,
    DTYPES,
    TensorSpec,
    TensorStore,
    publish,
    read_config,
    require_space,
    write_json,
    write_tensors,
)
from secateur.checkpoint.files import read_small
from secateur.checkpoint.passengers import copy_passengers, list_passengers
from secateur.checkpoint.strict_json import parse_json
from secateur.errors import CheckpointError, UsageError
from secateur.export.formats import FORMATS
from secateur.model import Model, open_model
from secateur.pruning.provenance import FILE

FOLDER, MANIFEST = "packed", "packed.json"
FORMAT = 1
_MAX_JSON = 1 << 30
_RECORD_ROOM = 4 << 20

Progress = Callable[[int, int], None]
Read = Callable[[str], torch.Tensor]
"""Name (of a tensor, or of a part) -> tensor."""


@dataclass(frozen=True)
class Entry:
    """How one tensor lies in parts; a line of the manifest. ``dtype``, ``shape``, ``sha256``: of the whole tensor.

    ``input_first``: its matrices lie there as (inputs, outputs).
    """

    format: str
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[str, ...]
    input_first: bool
    sha256: str

    @classmethod
    def of(cls, format: str, parts: Mapping[str, torch.Tensor], whole: torch.Tensor, *, input_first: bool) -> Entry:
        """The line for a tensor. CheckpointError when its parts do not give it back to the last bit."""
        entry = cls(format, CODES[whole.dtype], tuple(whole.shape), tuple(parts), input_first, _digest(whole))
        entry.tensor(parts.__getitem__, "a tensor to be packed")
        return entry

    @property
    def marker(self) -> torch.Tensor:
        """33 bytes from which, with the parent's index, this line is made again: ``input_first`` and the checksum."""
        return torch.frombuffer(bytearray([self.input_first, *bytes.fromhex(self.sha256)]), dtype=torch.uint8)

    def tensor(self, read: Read, place: str) -> torch.Tensor:
        """The tensor as the standard checkpoint has it. CheckpointError, naming ``place``, when it is another."""
        matrices = FORMATS[self.format]({p: read(p) for p in self.parts}, DTYPES[self.dtype][0])
        found = (matrices.transpose(-1, -2) if self.input_first else matrices).reshape(self.shape).contiguous()
        if _digest(found) != self.sha256:
            raise CheckpointError(
                f"{place}: its {self.format} do not unpack to what was packed",
                hint="the folder is damaged, or this machine rounds differently; pack the checkpoint again",
            )
        return found


def seal(model: Model, folder: Path) -> None:
    """Make a packed checkpoint of ``folder``, where the weights of ``model`` were written, some in parts.

    A tensor in parts is there as "<name>#<part>" with its marker "<name>#<format>" (:meth:`Entry.marker`).
    """
    names = [p.name for p in folder.iterdir() if p.name.startswith("model") and p.suffix in (".safetensors", ".json")]
    (folder / FOLDER).mkdir()
    for name in names:
        (folder / name).rename(folder / FOLDER / name)
    with TensorStore.open(folder / FOLDER) as store:
        parts: dict[str, list[str]] = {}
        for name in store.tensors:
            tensor, _, part = name.partition("#")
            if part:
                parts.setdefault(tensor, []).append(part)
        lines = {n: asdict(_marked(model, n, held, store.read)) for n, held in parts.items()}
    write_json(folder / MANIFEST, {"packed": FORMAT, "tensors": lines})


def _marked(model: Model, name: str, held: Sequence[str], read: Read) -> Entry:
    format = next(f for f in FORMATS if f in held)
    marker = bytes(read(f"{name}#{format}").tolist())
    info = model.weights.tensors[name]
    kept = tuple(p for p in held if p != format)
    return Entry(format, info.dtype, info.shape, kept, bool(marker[0]), marker[1:].hex())


def expand(folder: Path, out: Path, *, progress: Progress | None = None) -> Model:
    """The standard checkpoint that a packed folder stands for, written to ``out``; returns it opened.

    Raises UsageError when ``folder`` holds no packed checkpoint, CheckpointError when a tensor is not what it was.
    """
    entries = read_manifest(folder)
    with TensorStore.open(folder / FOLDER) as store:
        infos = store.tensors
        order = dict.fromkeys(n.partition("#")[0] if n.partition("#")[0] in entries else n for n in infos)
        whole = {n: entries[n] if n in entries else infos[n] for n in order}
        specs = [TensorSpec(n, i.dtype, i.shape) for n, i in whole.items()]

        def produce(spec: TensorSpec) -> torch.Tensor:
            entry = entries.get(spec.name)
            if entry is None:
                return store.read(spec.name)
            return entry.tensor(lambda part: store.read(f"{spec.name}#{part}"), f"{folder}: tensor {spec.name!r}")

        require_space(out, sum(s.nbytes for s in specs) + _RECORD_ROOM)
        with publish(out) as staging:
            write_tensors(staging, specs, produce, progress=_total(specs, progress))
            write_json(staging / "config.json", read_config(folder))
            copy_passengers(folder, staging, list_passengers(folder))
            if (folder / FILE).is_file():
                write_json(staging / FILE, _json(folder / FILE))
    return open_model(out)


def read_manifest(folder: Path) -> dict[str, Entry]:
    """Tensor -> its line. Raises UsageError when there is none, CheckpointError when it cannot be used."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(
            f"{folder}: no {MANIFEST}; this is no packed checkpoint",
            hint="`secateur expand` reads what --store wrote; other checkpoints are standard already",
        )
    found = _json(path)
    try:
        version, lines = found["packed"], found["tensors"]
        entries = {n: Entry(**{**e, "shape": tuple(e["shape"]), "parts": tuple(e["parts"])}) for n, e in lines.items()}
    except (KeyError, TypeError, AttributeError) as cause:
        raise CheckpointError(f"{path}: not a manifest of this library ({cause!r})") from cause
    unknown = sorted({e.format for e in entries.values()} - FORMATS.keys())
    if version != FORMAT or unknown:
        said = f"version {version!r}, expected {FORMAT}" if version != FORMAT else f"format {unknown[0]!r}"
        raise CheckpointError(f"{path}: {said}", hint=f"this version unpacks {', '.join(FORMATS)}")
    return entries


def _json(path: Path) -> Any:
    return parse_json(read_small(path, _MAX_JSON), path=path, error=CheckpointError, unique=True, specials=True)


def _digest(tensor: torch.Tensor) -> str:
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()


def _total(specs: Sequence[TensorSpec], progress: Progress | None) -> Callable[[int], None] | None:
    """Bytes of each piece -> (bytes done, of all)."""
    if progress is None:
        return None
    done, total = 0, sum(s.nbytes for s in specs)

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress(done, total)

    return advance
