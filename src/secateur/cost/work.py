"""What each verb has to do, counted from the config: operations, bytes moved, memory held, disk taken.

Glossary: ``W`` bytes of the weights on disk, ``F`` forward operations of the text (matrices, attention, recurrence,
without the head), ``H`` bytes of hidden states = tokens x hidden x 4, ``B`` the largest block's entries, ``R`` its
bytes on disk, ``n`` inputs of the widest linear that writes the residual stream, ``P`` parameters.

    calibrate   ops F                    moved W          memory 4B + 2R + 2H            disk H (journal)
    prune       ops -                    moved 2W + W'    memory two tensors             disk W'
    repair      ops F + 2.5F' + fit      moved W + 2W'    memory blocks + 2H + 2H' + fit   disk 2W'
    eval        ops F + heads            moved 2W         memory max(block, head) + H    disk H (journal)
    distill     ops 3 F' + F + heads     moved W          memory 16 P' + 4 P + batch     disk states, cache

A prime marks the child; prune hashes what it reads, eval and distill too. A repair runs each of the child's layers
about two and a half times (fitting, judging every try, outputs that do not follow from the fit's runs) and the
parent's once. Its fit is a Gram of 2 n^2 per token and a solution of n^3/3 + 2 d n^2, in 8 n^2 + 24 n d bytes; with
t < n/2 tokens to fit on, products over tokens instead: 2 t^2 n + 4 t d n, in 4 t (n + d) + 8 t (t + 2 d) + 24 n d
bytes; what outputs follow from takes 4 t (n + 2 d), at most 8 n^2. Adam keeps two moments and training a gradient: 16
bytes per parameter in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from secateur.anatomy import layout as lo
from secateur.model import Model
from secateur.pruning.budget import cost
from secateur.pruning.repair.evidence import FEW
from secateur.search.resources.base import Workload
from secateur.search.resources.flops import prefill

BASE, BASE_CUT = 430 << 20, 280 << 20
"""Resident bytes of Python with PyTorch, transformers and the checkpoint's config; without the modules of a walk."""
FITTED_SHARE = 0.75
"""Of its text a repair fits on this much and judges on the rest."""
BUFFERS = 256 << 20
"""What recycled buffers and the writer keep."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much text, and how it is cut. ``ranks``: processes that share it; ``train_tokens``: of a healing run, with
    ``micro_batch`` windows in memory at once; ``top_k``: of a teacher on disk."""

    samples: int = 128
    length: int = 512
    batch: int = 4
    ranks: int = 1
    train_tokens: int = 20_000_000
    micro_batch: int = 4
    top_k: int | None = None

    @property
    def tokens(self) -> int:
        return self.samples * self.length


@dataclass(frozen=True, slots=True)
class Work:
    """``flops``: operations; ``read``, ``written``, ``hashed``: bytes; ``memory``: bytes held at the peak, per process;
    ``disk``: bytes taken while it runs. ``cast``: entries turned from the file's dtype into float32."""

    flops: float = 0
    read: float = 0
    written: float = 0
    hashed: float = 0
    memory: float = BASE
    disk: float = 0
    cast: float = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """A model at some sizes, as far as cost goes. ``per_token``: operations of a token in text of the load's length."""

    parameters: float
    nbytes: float
    per_token: float
    head: float
    hidden: int
    block: float
    block_bytes: float
    tensor_bytes: float
    writer: float
    layers: int

    @classmethod
    def of(cls, model: Model, sizes: Mapping[str, int], layers: frozenset[int], length: int) -> Shape:
        """Of ``model`` with these sizes and layers."""
        whole = cost(model, sizes, sorted(layers))
        width = whole.bytes / max(1, whole.parameters)
        blocks: dict[int, float] = {}
        largest, writer = 0.0, 1.0
        for group in model.anatomy.groups:
            each = float(lo.numel(group.layout, sizes))
            largest = max(largest, each)
            for axis in group.factors:
                each *= sizes[axis]
            for layer in group.layers or ():
                if layer in layers:
                    blocks[layer] = blocks.get(layer, 0.0) + each
            dims = group.layout.dims
            if group.layers is not None and len(dims) == 2 and dims[0] == lo.Axis("d"):
                writer = max(writer, float(lo.numel(group.layout, sizes)) / sizes["d"])
        head = float(sizes["v"]) * sizes["d"]
        text = float(prefill(model, Workload(context=length, batch=1))(sizes, layers)) - 2 * head
        block = max(blocks.values(), default=0.0)
        return cls(
            parameters=whole.parameters, nbytes=whole.bytes, per_token=text / length, head=head, hidden=sizes["d"],
            block=block, block_bytes=block * width, tensor_bytes=largest * width, writer=writer, layers=len(layers),
        )  # fmt: skip

    def states(self, tokens: float) -> float:
        """Bytes of the residual stream of so many tokens, in float32."""
        return 4.0 * tokens * self.hidden


def _calibrate(a: Shape, b: Shape, load: Load) -> Work:
    tokens = load.tokens / load.ranks
    states = a.states(tokens)
    return Work(
        flops=a.per_token * tokens, read=a.nbytes, cast=a.parameters,
        memory=BASE + 4 * a.block + 2 * a.block_bytes + states + 8 * a.states(load.batch * load.length), disk=states,
    )  # fmt: skip


def _prune(a: Shape, b: Shape, load: Load) -> Work:
    return Work(
        read=2 * a.nbytes, written=b.nbytes, hashed=a.nbytes, disk=b.nbytes,
        memory=BASE_CUT + min(BUFFERS, a.nbytes) + 2 * a.tensor_bytes,
    )  # fmt: skip


def _repair(a: Shape, b: Shape, load: Load) -> Work:
    tokens = load.tokens
    fit, held = _fit(FITTED_SHARE * tokens, b.writer, b.hidden)
    blocks = 4 * (a.block + b.block) + 2 * (a.block_bytes + b.block_bytes)
    return Work(
        flops=tokens * (a.per_token + 2.5 * b.per_token) + b.layers * fit, read=a.nbytes + 2 * b.nbytes,
        written=2 * b.nbytes, cast=a.parameters + b.parameters,
        disk=2 * b.nbytes + a.states(tokens) + b.states(tokens),
        memory=BASE + blocks + 2 * a.states(tokens) + 2 * b.states(tokens) + held,
    )  # fmt: skip


def _fit(t: float, n: float, d: float) -> tuple[float, float]:
    """(operations, bytes) of the least squares of one linear of n inputs and d outputs on t tokens."""
    known = min(8 * n * n, 4 * t * (n + 2 * d))
    if t <= FEW * n:
        return 2 * t * t * n + 4 * t * d * n + t**3 / 3, known + 4 * t * (n + d) + 8 * t * (t + 2 * d) + 24 * n * d
    return 2 * n * n * t + n**3 / 3 + 2 * d * n * n, known + 8 * n * n + 24 * n * d


def _eval(a: Shape, b: Shape, load: Load) -> Work:
    tokens = load.tokens
    block = 4 * a.block + 2 * a.block_bytes + 8 * a.states(load.batch * load.length)
    heads = 4 * (a.head + b.head) + a.head * a.nbytes / a.parameters
    states = a.states(tokens) + b.states(tokens)
    return Work(
        flops=tokens * (a.per_token + b.per_token + 2 * (a.head + b.head)), read=2 * (a.nbytes + b.nbytes),
        hashed=a.nbytes + b.nbytes, cast=a.parameters + b.parameters, disk=states,
        memory=BASE + states + max(block, heads),
    )  # fmt: skip


def _distill(a: Shape, b: Shape, load: Load) -> Work:
    tokens, cached = load.train_tokens, load.top_k is not None
    cache = tokens * ((load.top_k or 0) * 4.0 + 4.0) if cached else 0.0
    states = 12.0 * b.parameters
    saves = 20
    held = (16 * b.parameters + (0 if cached else 4 * a.parameters)) / load.ranks
    live = load.micro_batch * load.length * b.layers * (b.block / max(1, b.hidden)) * 4
    return Work(
        flops=tokens * (3 * (b.per_token + 2 * b.head) + a.per_token + 2 * a.head), read=a.nbytes + b.nbytes + cache,
        written=saves * states + cache, hashed=a.nbytes + b.nbytes, cast=a.parameters + b.parameters,
        disk=2 * states + cache + b.nbytes, memory=BASE + held + live,
    )  # fmt: skip


#: Verb -> what it does to a parent ``a`` and its child ``b``.
VERBS: Mapping[str, Callable[[Shape, Shape, Load], Work]] = {
    "calibrate": _calibrate,
    "prune": _prune,
    "repair": _repair,
    "eval": _eval,
    "distill": _distill,
}


def work(model: Model, sizes: Mapping[str, Any], layers: frozenset[int], load: Load) -> dict[str, Work]:
    """Verb -> what it has to do, for a cut of ``model`` to ``sizes`` and ``layers`` (the parent's indices)."""
    anatomy = model.anatomy
    whole = Shape.of(model, anatomy.sizes, frozenset(range(anatomy.n_layers)), load.length)
    child = Shape.of(model, sizes, layers, load.length)
    fit = replace(load, samples=min(load.samples, 64), length=min(load.length, 256))
    return {verb: count(whole, child, fit if verb == "repair" else load) for verb, count in VERBS.items()}


__all__ = ["VERBS", "Load", "Shape", "Work", "work"]
