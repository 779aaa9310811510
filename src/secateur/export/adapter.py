"""Low-rank residuals as a LoRA adapter in the format of PEFT, which peft and vLLM load beside the checkpoint.

    adapter/adapter_config.json           rank r, lora_alpha r (so the factor is 1), names of the modules
    adapter/adapter_model.safetensors     base_model.model.<module>.lora_A.weight (r, d), .lora_B.weight (m, r)

The rank is the same everywhere: where a linear has fewer, the rest is zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from secateur.calibration.observer import Layer
from secateur.calibration.skeleton import Skeleton
from secateur.checkpoint import write_json
from secateur.layerwise.base import Method, Solution
from secateur.layerwise.factorize.residual import BASE, LEFT, RIGHT, with_residual, without_residual
from secateur.layerwise.places import Place, places
from secateur.model import Model

Choose = Callable[[Place], tuple[Method, Any] | str]
FOLDER, CONFIG, WEIGHTS = "adapter", "adapter_config.json", "adapter_model.safetensors"


class Inner(Protocol):
    """How the method itself stores its linears (the engine's Storage)."""

    def tensors(
        self, place: Place, solutions: Sequence[Solution | None], dense: torch.Tensor
    ) -> Mapping[str, torch.Tensor]: ...

    def config(self, raw: Mapping[str, Any]) -> dict[str, Any]: ...

    def finish(self, model: Model, folder: Path) -> None: ...


class WithAdapter:
    """Storage for solutions with a residual: theirs by ``inner``, the residual as an adapter.

    ``work``: folder for residuals until the checkpoint is written; one file a linear, so a resumed run finds them.
    """

    def __init__(self, inner: Inner, work: Path, rank: int) -> None:
        self.inner, self.work, self.rank = inner, work, rank

    def tensors(
        self, place: Place, solutions: Sequence[Solution | None], dense: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """What takes the place of the weight, without its residual."""
        if any(s is not None and LEFT not in s.parts for s in solutions):
            return self.inner.tensors(place, solutions, dense)
        old = place.matrices(dense)
        base = torch.stack([o if s is None else s.parts[BASE] for s, o in zip(solutions, old, strict=True)])
        first = solutions[0]
        if first is not None and len(solutions) == 1:
            self.work.mkdir(parents=True, exist_ok=True)
            pair = {"A": first.parts[RIGHT].contiguous(), "B": first.parts[LEFT].contiguous()}
            save_file(pair, self.work / f"{place.name}.safetensors")
        return self.inner.tensors(place, without_residual(solutions), place.tensor(base))

    def config(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """As the method's own storage says."""
        return self.inner.config(raw)

    def finish(self, model: Model, folder: Path) -> None:
        """Write the adapter, then whatever the method's own storage does at the end."""
        files = {m: self.work / f"{n}.safetensors" for n, m in module_names(model).items()}
        write_adapter(folder / FOLDER, {m: p for m, p in files.items() if p.is_file()}, self.rank)
        self.inner.finish(model, folder)


def write_adapter(folder: Path, pairs: Mapping[str, Path], rank: int) -> None:
    """``pairs``: module -> file with A (r, d) and B (m, r)."""
    folder.mkdir()
    tensors: dict[str, torch.Tensor] = {}
    for module, path in sorted(pairs.items()):
        with safe_open(path, "pt") as held:
            a, b = held.get_tensor("A"), held.get_tensor("B")
        pad = rank - len(a)
        tensors[f"base_model.model.{module}.lora_A.weight"] = nn.functional.pad(a, (0, 0, 0, pad))
        tensors[f"base_model.model.{module}.lora_B.weight"] = nn.functional.pad(b, (0, pad)).contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
        "target_modules": sorted(pairs),
    }
    write_json(folder / CONFIG, config)


def module_names(model: Model) -> dict[str, str]:
    """On-disk name of a weight -> the nn.Linear of the transformers model that holds it."""
    skeleton, anatomy = Skeleton(model), model.anatomy
    named = {id(m): n for n, m in skeleton.model.named_modules()}
    found: dict[str, str] = {}
    for i in range(anatomy.n_layers):
        for place in places(Layer(i, anatomy.kinds[i], skeleton.blocks[i], anatomy)):
            if isinstance(place.module, nn.Linear) and place.attribute == "weight":
                found.setdefault(place.name, named[id(place.module)])
    return found


def composed(
    model: Model, method: Method, choose: Choose, inner: Inner, work: Path, rank: int
) -> tuple[Method, Choose, WithAdapter]:
    """``method``, what each linear gets, and its storage, with a residual wherever an adapter can stand: not beside
    experts that are fused into one module, or weights that are no nn.Linear."""
    able = module_names(model)

    def chosen(place: Place) -> tuple[Method, Any] | str:
        got = choose(place)
        if isinstance(got, str) or place.name not in able:
            return got
        return with_residual(got[0], rank), got[1]

    return with_residual(method, rank), chosen, WithAdapter(inner, work / "residual", rank)
