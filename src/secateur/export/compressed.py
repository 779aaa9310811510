"""Packed whole numbers as compressed-tensors has them: what plain transformers and vLLM load.

A linear is packed where transformers' loader can take it; where it cannot, it is stored dense, dequantised, and the
record says why. What the loader can take is asked of the loader's own code, on a model without weights:

    a raw read      ``_init_weights`` of Mamba, Mamba-2, .. reads ``out_proj.weight`` (or ``dt_proj.weight``) of modules
                    that have no such parameter once they are packed
    tied            weights that several layers share are tied by name, and the packed names are not
    no linear       experts stacked in one tensor on disk, Conv1D, raw parameters
    converters      what a converter merges while loading (experts stored one by one) is dequantised by it, provided
                    that it is packed with symmetric grids; a converter that merges anything else (convolutions) fails,
                    and then nothing of that model is packed
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.calibration.observer import Layer
from secateur.calibration.skeleton import Skeleton, quiet
from secateur.checkpoint import write_json
from secateur.checkpoint.quantized import PACKED, SCALE, SHAPE, pack
from secateur.errors import UsageError
from secateur.layerwise.base import Solution
from secateur.layerwise.places import Place, places
from secateur.model import Model
from secateur.pruning.provenance import FILE

CONVERTED = "one of several experts"
"""Not a module of its own once loaded."""
_SERVED_BITS, _SERVED_SIZE = 4, 32
_EXPERTS = r"re:.*\.experts\.\d+\..*"


class CompressedTensors:
    """The engine's storage. ``why``: on-disk name -> why that linear stays dense; see :func:`packable`."""

    def __init__(self, model: Model, *, symmetric: bool = True) -> None:
        self.modules, self.linears, self.why = packable(model)
        if not symmetric:
            raise UsageError(
                "asymmetric grids cannot be packed: transformers does not load packed zeros (compressed-tensors 0.20)",
                hint="leave out --asymmetric, or store the result dequantised: --store dense",
            )

    def tensors(
        self, place: Place, solutions: Sequence[Solution | None], dense: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """Packed parts, or the dense weight."""
        solution = solutions[0] if len(solutions) == 1 else None
        if place.name in self.why or solution is None or "codes" not in solution.parts or place.input_first:
            return {place.name: dense}
        if {"levels", "signs", "zero"} & solution.parts.keys():
            self.why[place.name] = "no standard loader takes its grid packed"
            return {place.name: dense}
        return packed(place.name, solution.parts)

    def config(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        return dict(raw)

    def finish(self, model: Model, folder: Path) -> None:
        """config.json gains what loaders need to know, secateur.json how every linear is stored."""
        from safetensors import safe_open

        names: set[str] = set()
        for file in folder.glob("*.safetensors"):
            with safe_open(file, "pt") as opened:
                names |= set(opened.keys())
        record = json.loads((folder / FILE).read_text(encoding="utf-8"))
        notes = {x["tensor"]: x["notes"] for x in record["audit"]["linears"] if x["action"] == "done"}
        stored = {n: f"{n.removesuffix('weight')}{PACKED}" in names for n in notes}
        done = {n: notes[n] for n, is_packed in stored.items() if is_packed}
        record["storage"] = {
            "format": "compressed-tensors" if done else "dense",
            "packed": sorted(done),
            "dense": {n: self._reason(n) for n, is_packed in sorted(stored.items()) if not is_packed},
            "refused": {n: why for n in sorted(done) if (why := refused(model.weights.tensors[n].shape, notes[n]))},
        }
        write_json(folder / FILE, record)
        if done:
            write_json(
                folder / "config.json",
                {**model.raw, "quantization_config": quantization(self.modules, self.linears, done)},
            )

    def _reason(self, name: str) -> str:
        return self.why.get(name, "several matrices in one tensor, or a method without packed parts")


def refused(shape: Sequence[int], notes: Mapping[str, Any]) -> str:
    """Why vLLM has no kernel on a CPU for a packed linear of ``shape`` (outputs, inputs), by the checks of vLLM 0.32;
    '' where it has one. One such linear, and it does not load the checkpoint."""
    if notes["bits"] != _SERVED_BITS:
        return f"{notes['bits']} bits, and it has {_SERVED_BITS}"
    odd = [f"{n} {what}" for n, what in zip(shape, ("outputs", "inputs"), strict=True) if n % _SERVED_SIZE]
    return f"{' and '.join(odd)}: no multiple of {_SERVED_SIZE}" if odd else ""


def packed(name: str, parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of one linear."""
    base = name.removesuffix("weight")
    return {
        base + PACKED: pack(parts["codes"], int(parts["bits"])),
        base + SCALE: parts["scale"].contiguous(),
        base + SHAPE: torch.tensor(parts["codes"].shape),
    }


def quantization(
    modules: Mapping[str, str], linears: Sequence[str], done: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The ``quantization_config``. ``modules``: on-disk name -> module; ``linears``: every nn.Linear of the model;
    ``done``: on-disk name -> bits, group (0: whole row), symmetric.

    With one format for all, its group targets the class Linear, as other writers have it, and dense linears are
    ignored by name; with several each names its modules.
    """
    formats: dict[tuple[int, int, bool], list[str]] = {}
    for name, notes in done.items():
        formats.setdefault((notes["bits"], notes["group"], notes["symmetric"]), []).append(modules[name])
    groups = {}
    for i, (form, named) in enumerate(formats.items()):
        targets = ["Linear"] if len(formats) == 1 else sorted({_EXPERTS if n == CONVERTED else n for n in named})
        scheme = {"targets": targets, "weights": _scheme(*form), "input_activations": None, "output_activations": None}
        groups[f"group_{i}"] = scheme
    held = {m for named in formats.values() for m in named}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [m for m in linears if m not in held],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def _scheme(bits: int, group: int, symmetric: bool) -> dict[str, Any]:
    strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel", "group_size": None}
    return {"num_bits": bits, "type": "int", "symmetric": symmetric, "dynamic": False, "actorder": None, **strategy}


def packable(model: Model) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """(on-disk name -> module of what can be packed, names of every nn.Linear, on-disk name -> why one cannot be)."""
    skeleton, anatomy = Skeleton(model), model.anatomy
    names = {id(m): n for n, m in skeleton.model.named_modules()}
    every = {
        place.name: place
        for i in range(anatomy.n_layers)
        for place in places(Layer(i, anatomy.kinds[i], skeleton.blocks[i], anatomy))
    }
    raw, hopeless = raw_reads(skeleton.model), _other_merges(skeleton.model, list(anatomy.tensors), every)
    found, why = {}, {}
    for name, place in every.items():
        reason = hopeless or _reason(place, raw, model)
        if reason:
            why[name] = reason
        else:
            found[name] = CONVERTED if place.module is None else names[id(place.module)]
    return found, [n for n, m in skeleton.model.named_modules() if isinstance(m, nn.Linear)], why


def _reason(place: Place, raw: set[int], model: Model) -> str:
    shared = model.anatomy.family.shared
    if shared is not None and place.decl.pattern.startswith(shared.prefix):
        return "layers share it: transformers ties such weights by a name that packed ones do not have"
    if place.module is None:
        return "" if place.expert is not None else "experts stacked in one tensor: no loader takes them packed"
    if not isinstance(place.module, nn.Linear):
        return f"{type(place.module).__name__} is no nn.Linear: no loader takes it packed"
    if id(place.module) in raw:
        return "transformers reads this module's weight itself when it loads the model: packed it has none"
    return ""


def raw_reads(model: Any) -> set[int]:
    """Ids of the linears whose ``weight`` some module's ``_init_weights`` reads: found by taking them away in turn."""
    found: set[int] = set()
    with quiet(), torch.no_grad():
        for parent in model.modules():
            for child in parent.modules():
                if isinstance(child, nn.Linear) and id(child) not in found:
                    weight = child._parameters.pop("weight")
                    try:
                        model._init_weights(parent)
                    except AttributeError:
                        found.add(id(child))
                    finally:
                        child._parameters["weight"] = weight
    return found


def _other_merges(model: Any, names: Sequence[str], every: Mapping[str, Place]) -> str:
    """Why nothing can be packed: a converter merges weights that are no experts; '' where there is none."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    for converter in get_model_conversion_mapping(model):
        if not isinstance(converter, WeightConverter):
            continue
        touched = [n for n in names if converter.rename_source_key(n)[1] is not None]
        other = [n for n in touched if n.endswith(".weight") and (n not in every or every[n].module is not None)]
        if other:
            return f"transformers merges {other[0]!r} while loading, and in a packed checkpoint that step fails"
    return ""
