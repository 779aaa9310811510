"""Is the cut exact? The child against its parent with the same units masked, both loaded by plain transformers."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from secateur.calibration.skeleton import quiet
from secateur.checkpoint import TensorSpec, write_json, write_tensors
from secateur.checkpoint.config import read_config
from secateur.checkpoint.quantized import dense_loading
from secateur.errors import CheckpointError, UsageError
from secateur.model import Model
from secateur.pruning.cut import Cut
from secateur.pruning.recorded import recorded_cut, recorded_units
from secateur.pruning.silenced import Silenced

#: Largest accepted deviation, relative to the spread of the logits, by the dtype the weights are stored in: rescaled
#: norm weights are rounded to that dtype, and everything is computed in float32.
TOLERANCE = {"F64": 1e-4, "F32": 1e-4, "F16": 2e-2, "BF16": 1e-1}

#: The grouped matrix kernel that transformers prefers for experts refuses strides that are no multiple of 16 bytes.
_ANY_WIDTH = {"experts_implementation": "eager"}


@dataclass(frozen=True, slots=True)
class Equality:
    """Deviations are max|masked - child| / std(masked) over the logits of random tokens, computed in float32.

    ``at_eps``: with the config's norm epsilon; ``eps_to_zero``: with a vanishing one, which isolates the cut itself.
    ``cached``: token-by-token decoding against the full forward of the child. ``cached_parent``: the same of the
    parent, for what transformers computes differently by itself (Nemotron-H clamps small time steps in the full
    forward only). ``uncut``: the parent against the child, which shows that the cut removed something.
    """

    at_eps: float
    eps_to_zero: float
    cached: float
    cached_parent: float
    uncut: float
    parameters: int
    formula: int
    tolerance: float

    @property
    def cache_agrees(self) -> bool:
        """Cached decoding equals the full forward, or differs no more than the parent's does."""
        return self.cached <= max(self.tolerance, 1e-3, 10 * self.cached_parent)

    @property
    def holds(self) -> bool:
        """Equal to the masked parent, cache consistent, count as planned (strict loading has raised already if not)."""
        return self.eps_to_zero <= self.tolerance and self.cache_agrees and self.parameters == self.formula


@quiet()
def verify(parent: Model, child: Model, *, tokens: int = 48, seed: int = 0) -> Equality:
    """Rebuild the masked parent from the child's secateur.json and compare.

    Both models are held in memory (float32). Raises UsageError when the child does not come from this parent.
    """
    cut = recorded_cut(parent, child)
    units = recorded_units(parent, child)
    changed = {a for a, _ in cut.keep.arrays if cut.new_sizes[a] != parent.anatomy.sizes[a]}
    if changed & set(parent.anatomy.family.functional):
        raise UsageError("a mask cannot silence experts, so an expert cut cannot be verified this way")
    vocabulary = cut.keep.get("v", "", {})
    generator = torch.Generator().manual_seed(seed)
    new_ids = torch.randint(len(vocabulary), (1, tokens), generator=generator)
    old_ids = torch.from_numpy(vocabulary)[new_ids]
    rows = torch.from_numpy(vocabulary)
    with tempfile.TemporaryDirectory(prefix="secateur-verify-") as scratch:
        twin = _masked_twin(Silenced(parent, units) if units else parent, cut, Path(scratch))
        results = {}
        for label, eps in (("at_eps", None), ("eps_to_zero", 1e-30)):
            want = _logits(twin, old_ids, eps)[..., rows]
            got = _logits(child.folder, new_ids, eps)
            results[label] = _distance(want, got)
    full, cached = _both_ways(child.folder, new_ids)
    whole, whole_cached = (logits[..., rows] for logits in _both_ways(parent.folder, old_ids))
    dtypes = {info.dtype for info in child.weights.tensors.values()}
    return Equality(
        **results,
        cached=_distance(full, cached),
        cached_parent=_distance(whole, whole_cached),
        uncut=_distance(whole, full),
        parameters=sum(info.numel for info in child.weights.tensors.values()),
        formula=int(parent.anatomy.count(cut.new_sizes, frozenset(cut.layers))),
        tolerance=max(TOLERANCE[d] for d in dtypes if d in TOLERANCE),
    )


def _masked_twin(parent: Model, cut: Cut, folder: Path) -> Path:
    targets = {t.decl.name: t for t in cut.targets()}
    specs = [TensorSpec(n, i.dtype, i.shape) for n, i in parent.weights.tensors.items() if n in targets]
    write_tensors(folder, specs, lambda s: cut.mask(targets[s.name], parent.read(s.name)))
    write_json(folder / "config.json", parent.raw)
    return folder


def load_strict(folder: Path, overrides: Mapping[str, Any] | None = None) -> Any:
    """Plain transformers in float32, no remote code. Raises CheckpointError when any key is missing or left over."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()), _blamed(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that dense_loading() overrides the config: it is meant to
            dense = dense_loading(read_config(folder / "config.json"))
            model, info = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, **dense, **(overrides or {})
            )
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
    problems = {k: sorted(map(str, v))[:3] for k, v in info.items() if v}
    if problems:
        raise CheckpointError(f"{folder}: transformers does not load it strictly: {problems}")
    return model.eval()


@contextlib.contextmanager
def _blamed(folder: Path) -> Iterator[None]:
    """transformers meets a config it cannot run with every kind of exception; all mean the same to the user."""
    try:
        yield
    except Exception as e:
        reason = " ".join(str(e).split())[:400]
        raise CheckpointError(f"{folder}: transformers cannot run it: {type(e).__name__}: {reason}") from e


@contextlib.contextmanager
def _eps(model: Any, value: float | None) -> Iterator[None]:
    """Norm modules with another epsilon for a while."""
    saved = []
    for module in model.modules() if value is not None else ():
        for name in ("variance_epsilon", "eps"):
            if "Norm" in type(module).__name__ and isinstance(getattr(module, name, None), float):
                saved.append((module, name, getattr(module, name)))
                setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, old in saved:
            setattr(module, name, old)


def _logits(folder: Path, ids: torch.Tensor, eps: float | None) -> torch.Tensor:
    model = load_strict(folder, _ANY_WIDTH)
    with _blamed(folder), _eps(model, eps):
        return _forward(model, ids)


def _both_ways(folder: Path, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the full forward, and of decoding through the cache."""
    model = load_strict(folder, _ANY_WIDTH)
    with _blamed(folder):
        return _forward(model, ids), _decode(model, ids)


@torch.no_grad()
def _forward(model: Any, ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(ids, use_cache=False).logits
    return logits.double()


@torch.no_grad()
def _decode(model: Any, ids: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """Prefill, then ``steps`` tokens one by one through the cache."""
    from transformers import DynamicCache

    start, takes = ids.shape[1] - steps, signature(model.forward).parameters
    # given from outside, because RecurrentGemma does not hand its cache back
    given = {"past_key_values": DynamicCache(config=model.config)} if "past_key_values" in takes else {}
    out = model(ids[:, :start], use_cache=True, **given)
    name = "cache_params" if getattr(out, "cache_params", None) is not None else "past_key_values"
    parts, state = [out.logits], getattr(out, name, given.get(name))
    for i in range(start, ids.shape[1]):
        place = {"position_ids": torch.tensor([[i]])} if "position_ids" in takes else {}
        out = model(ids[:, i : i + 1], use_cache=True, **{name: state}, **place)
        state = getattr(out, name, state)
        parts.append(out.logits)
    return torch.cat(parts, 1).double()


def _distance(want: torch.Tensor, got: torch.Tensor) -> float:
    return float((want - got).abs().max() / want.std())


__all__ = ["Equality", "load_strict", "verify"]
