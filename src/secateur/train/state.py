"""Saved states of a run: weights, AdamW's moments and random generators at a step; a folder that is whole or absent.
 Tensors are written one at a time, gathered from their shards under FSDP, so that no process holds the whole state
twice. The position in the data and the learning rate follow from the step.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from secateur.checkpoint import CODES, TensorSpec, TensorStore, require_space, write_json, write_tensors
from secateur.checkpoint.files import disk_error
from secateur.checkpoint.publish import sync_tree
from secateur.errors import CheckpointError
from secateur.train.settings import TrainingError

FILE = "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq")


def trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters that learn, each once, in a fixed order."""
    yield from ((n, p) for n, p in module.named_parameters() if p.requires_grad)


def save(accelerator: Any, work: Path, module: nn.Module, optimizer: Any, step: int) -> None:
    """Write the state after ``step`` steps and remove older ones. Every process calls this.

    CheckpointError when the disk refuses; the state saved before stays.
    """
    generators: list[dict[str, str]] = gather_object([_generators()])
    tensors = dict(_tensors(module, optimizer))
    if accelerator.is_main_process:
        counts = {n: int(optimizer.state[p]["step"]) for n, p in trained(module) if optimizer.state.get(p)}
        about = {"step": step, "counts": counts, "generators": generators}
        folder, part = work / f"step-{step:09d}", work / "step.part"
        try:
            _write(part, tensors, about)
            part.rename(folder)
        except OSError as cause:
            raise disk_error(cause, folder) from cause
        finally:
            shutil.rmtree(part, ignore_errors=True)
        for old in set(work.glob("step-*")) - {folder}:
            shutil.rmtree(old, ignore_errors=True)
    else:
        for tensor in tensors.values():
            whole(tensor)
    accelerator.wait_for_everyone()


def _write(folder: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    # all in one dtype, so that the writer keeps the order in which the other processes take part in gathering
    specs = [TensorSpec(name, CODES[t.dtype], tuple(t.shape)) for name, t in tensors.items()]
    require_space(folder, sum(s.nbytes for s in specs))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_tensors(folder, specs, lambda spec: whole(tensors[spec.name]))
    write_json(folder / FILE, about)
    sync_tree(folder)


def latest(work: Path) -> Path | None:
    """The newest saved state in ``work``."""
    return max(work.glob("step-*"), default=None)


def load(accelerator: Any, folder: Path, module: nn.Module, optimizer: Any) -> int:
    """Put the state saved in ``folder`` back; returns its step. TrainingError when it is of another model or
    cluster."""
    try:
        about = json.loads((folder / FILE).read_text())
        counts, generators = dict(about["counts"]), list(about["generators"])
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise CheckpointError(f"{folder / FILE}: cannot be read: {cause}", hint="start over with --restart") from cause
    if len(generators) != accelerator.num_processes:
        raise TrainingError(
            f"{folder} was saved by {len(generators)} processes, this run has {accelerator.num_processes}",
            hint="resume with as many processes as before, or start over with --restart",
        )
    with TensorStore.open(folder) as store, torch.no_grad():
        for name, parameter in trained(module):
            _put(parameter, store.read(f"weights.{name}"))
            if name in counts:
                moments = {m: torch.empty_like(parameter) for m in MOMENTS}
                for moment, tensor in moments.items():
                    _put(tensor, store.read(f"{moment}.{name}"))
                optimizer.state[parameter] = {"step": torch.tensor(float(counts[name])), **moments}
    _restore(generators[accelerator.process_index])
    return int(about["step"])


def whole(tensor: Tensor) -> Tensor:
    """On the CPU, gathered from its shards where it has some (then every process must ask)."""
    gathered = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return gathered.detach().cpu()


def _tensors(module: nn.Module, optimizer: Any) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in trained(module):
        yield f"weights.{name}", parameter
        state = optimizer.state.get(parameter)
        if state:
            yield from ((f"{moment}.{name}", state[moment]) for moment in MOMENTS)


def _put(target: Tensor, value: Tensor) -> None:
    if value.shape != target.shape:
        raise TrainingError(f"the saved state has shape {list(value.shape)} where the model has {list(target.shape)}")
    value = value.to(target.device)
    if hasattr(target, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value, target.device_mesh, target.placements)  # type: ignore[attr-defined]
    target.copy_(value)


def _generators() -> dict[str, str]:
    """Generator states of this process, in hex."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: state.numpy().tobytes().hex() for name, state in states.items()}


def _restore(states: dict[str, str]) -> None:
    for name, text in states.items():
        state = torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
        if name == "cpu":
            torch.set_rng_state(state)
        elif torch.cuda.is_available():
            torch.cuda.set_rng_state(state)
