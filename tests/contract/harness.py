"""Tiny models of every family, cut and masked, compared in float64."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from secateur.anatomy.anatomy import Anatomy
from secateur.importance import CRITERIA, changed_axes, keep_best
from secateur.pruning.cut import Cut
from secateur.pruning.keep import KeepSets
from secateur.pruning.shape import resolve

from .rows import ROWS, VOCAB

transformers.logging.set_verbosity_error()
TINY_EPS = 1e-30
_FLOAT32 = torch.float32


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Make modelling code's upcasts to float32 mean float64, so that equalities can be checked to 1e-10."""
    saved = torch.float32, torch.float, torch.Tensor.float, torch.get_default_dtype()
    torch.float32 = torch.float = torch.float64  # type: ignore[misc]
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign, assignment]
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = saved[:3]  # type: ignore[misc, method-assign]
        torch.set_default_dtype(saved[3])


@torch.no_grad()
def randomize(model: torch.nn.Module, seed: int, std: float = 0.9) -> torch.nn.Module:
    """Weights large enough that every path of the network matters."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=g)
        if name.endswith(("A_log", "dt_bias", "dt_proj.bias")):
            p.copy_(r * 0.5)
        elif p.ndim == 1 or "norm" in name:
            p.copy_(p + 0.2 * r)
        else:
            p.copy_(r * std / p.shape[-1] ** 0.5)
    for name, b in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            b.copy_(0.1 * torch.randn(b.shape, generator=g))
    return model


@dataclass
class Parent:
    """A saved tiny model: its folder, raw config, anatomy and float64 tensors by on-disk name."""

    name: str
    folder: Path
    anatomy: Anatomy
    tensors: dict[str, torch.Tensor]

    @property
    def row(self) -> Any:
        return ROWS[self.name]

    def keep(self, wanted: Mapping[str, int], seed: int = 0) -> KeepSets:
        """Random kept units for public sizes, different in every scope and enclosing unit."""
        sizes = resolve(self.anatomy, wanted)
        axes = changed_axes(self.anatomy, sizes)
        return keep_best(self.anatomy, CRITERIA["random"](self.anatomy, self.tensors.__getitem__, axes, seed), sizes)

    def permutation(self, axis: str, seed: int = 1) -> KeepSets:
        """Every unit kept, in a random order: per scope and enclosing unit."""
        scores = CRITERIA["random"](self.anatomy, self.tensors.__getitem__, [axis], seed)
        keep = KeepSets(self.anatomy)
        for (a, scope), score in scores.items():
            order = np.argsort(score, axis=-1)
            still = (order == np.arange(order.shape[-1])).all(-1, keepdims=True)
            keep.set(a, scope, np.where(still, np.roll(order, 1, -1), order))
        return keep


def build(name: str, folder: Path, **over: Any) -> Parent:
    """Make, randomise and save the tiny model of a row."""
    row = ROWS[name]
    torch.manual_seed(0)
    fields = {"vocab_size": VOCAB, **row.config, **over}
    config = AutoConfig.for_model(row.model_type or name.partition("@")[0], **fields)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    randomize(model, seed=7).double().save_pretrained(folder)
    file = folder / "config.json"
    kept = {k: v for k, v in json.loads(file.read_text()).items() if k not in row.absent}
    file.write_text(json.dumps(kept | row.present))
    return open_parent(name, folder)


def open_parent(name: str, folder: Path) -> Parent:
    """Read a saved tiny model back by its on-disk names."""
    raw = json.loads((folder / "config.json").read_text())
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    anatomy = Anatomy(raw).with_root(list(tensors))
    return Parent(name, folder, anatomy, tensors)


def write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Path:
    """A checkpoint folder from a config and on-disk tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({n: t.clone().contiguous() for n, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def load(folder: Path) -> Any:
    """Plain transformers, strict: no missing, unexpected or mismatched key."""
    with double_precision():
        # grouped matrix kernels know no float64
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float64, output_loading_info=True, experts_implementation="eager"
        )
    problems = {k: v for k, v in info.items() if v}
    assert not problems, f"strict load failed: {problems}"
    for module in model.modules():
        _widen_defaults(type(module))
    return model.eval()


def _widen_defaults(module: type) -> None:
    """Default arguments that say float32 were bound before :func:`double_precision` (RG-LRU's accumulator)."""
    for f in filter(inspect.isfunction, vars(module).values()):
        f.__defaults__ = f.__defaults__ and tuple(torch.float64 if d is _FLOAT32 else d for d in f.__defaults__)


def tiny_eps(config: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    return {**config, **dict.fromkeys(fields, TINY_EPS)}


def cut_pair(
    parent: Parent, cut: Cut, folder: Path, *, eps_to_zero: bool = True, norm_factor: bool = True
) -> tuple[Any, Any]:
    """(masked parent, cut child), both loaded by plain transformers. With ``eps_to_zero`` the norms' eps vanishes."""
    targets = list(cut.targets())
    child = {
        t.name: cut.apply(t if norm_factor else _without_factor(t), parent.tensors[t.decl.name])
        for t in targets
        if t.name is not None
    }
    shared = parent.anatomy.family.shared
    masked = {
        t.decl.name: cut.mask(t, parent.tensors[t.decl.name])
        if t.name is not None or shared is None
        else parent.tensors[t.decl.name] * 0
        for t in targets
    }
    eps = [*((parent.anatomy.family.eps_field,) if parent.anatomy.family.eps_field else ()), *parent.row.eps_fields]
    fields = eps if eps_to_zero else []
    a = load(write(folder / "masked", tiny_eps(parent.anatomy.raw, fields), masked))
    b = load(write(folder / "child", tiny_eps(cut.config, fields), child))
    silence_experts(a, parent, cut)
    for module in [*a.modules(), *b.modules()] if eps_to_zero and parent.row.eps_in_code else []:
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = TINY_EPS
    return a, b


def _without_factor(target: Any) -> Any:
    import dataclasses

    return dataclasses.replace(target, factor=1.0)


def silence_experts(model: Any, parent: Parent, cut: Cut) -> None:
    """A zero row does not silence an expert: its router logit must be -inf."""
    gone: dict[int, list[int]] = {}
    for (axis, scope), kept in cut.keep.arrays.items():
        if axis == "E":
            gone[int(scope)] = [i for i in range(parent.anatomy.sizes["E"]) if i not in set(kept.tolist())]
    for name, module in model.named_modules():
        if not gone or not re.search(r"Router|TopK|Gating", type(module).__name__):
            continue
        layer = int(re.search(r"\.(\d+)\.", name).group(1))  # type: ignore[union-attr]
        module.forward = _masked_router(module, gone.get(layer, []))


def _masked_router(module: Any, removed: list[int]) -> Any:
    plain = module.forward
    if getattr(module, "e_score_correction_bias", None) is not None:
        module.e_score_correction_bias.data[removed] = -1e30

    def forward(*args: Any, **kwargs: Any) -> Any:
        linear = F.linear

        def masked(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
            y = linear(x, w, b).clone()
            y[..., removed] = -1e30
            return y

        F.linear = masked
        try:
            return plain(*args, **kwargs)
        finally:
            F.linear = linear

    return forward


def ids(length: int = 21) -> torch.Tensor:
    return torch.randint(3, VOCAB, (2, length), generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def logits(model: Any, tokens: torch.Tensor | None = None) -> torch.Tensor:
    """Full forward, float64. Shape (batch, tokens, vocab)."""
    with double_precision():
        return model(ids() if tokens is None else tokens, use_cache=False).logits


@torch.no_grad()
def cached_logits(model: Any, steps: int = 3) -> torch.Tensor:
    """Prefill all but the last tokens, then decode them one by one with the cache, positions given as generate does."""
    tokens = ids()
    cut = tokens.shape[1] - steps
    takes = inspect.signature(model.forward).parameters
    positions = "position_ids" in takes
    # given from outside, because RecurrentGemma does not hand its cache back
    given = {"past_key_values": DynamicCache(config=model.config)} if "past_key_values" in takes else {}
    with double_precision():
        out = model(tokens[:, :cut], use_cache=True, **given)
        cache = "cache_params" if getattr(out, "cache_params", None) is not None else "past_key_values"
        parts, state = [out.logits], getattr(out, cache, given.get(cache))
        for i in range(cut, tokens.shape[1]):
            place = {"position_ids": torch.tensor([[i]])} if positions else {}
            out = model(tokens[:, i : i + 1], use_cache=True, **{cache: state}, **place)
            state = getattr(out, cache, state)
            parts.append(out.logits)
    return torch.cat(parts, 1)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """max|a - b| over the spread of a."""
    assert a.shape == b.shape, (a.shape, b.shape)
    return float((a - b).abs().max() / a.std())
