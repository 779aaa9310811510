"""Which tensors are linears, how they are stored and where their inputs are met: read off the layouts.

Every declared tensor is either a :class:`Place` or left for a reason. A tensor that no rule covers is an error: what is
not understood is not passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy, TensorDecl
from secateur.calibration.experts import fused
from secateur.calibration.observer import Layer
from secateur.errors import LayoutError

Role = Literal["linear", "blocks", "first", "second"]


@dataclass(frozen=True)
class Place:
    """One tensor on disk that is a linear, or several stacked ones.

    ``role``: a plain linear; a stack of block-diagonal ones, each on its own inputs; the first (gate, up) or second
    (down) matrix of routed experts. ``input_first``: matrices are stored (inputs, outputs). ``module``, ``attribute``:
    the parameter in the block (None for experts, whose module the loader fuses). ``expert``: the one this tensor
    belongs to; None where all are stacked in it. ``shared``: one weight, used by several layers.
    """

    decl: TensorDecl
    role: Role
    input_first: bool
    module: nn.Module | None = None
    attribute: str = ""
    expert: int | None = None
    shared: bool = False

    @property
    def name(self) -> str:
        return self.decl.name

    @property
    def stacked(self) -> bool:
        """Whether the tensor holds several matrices."""
        return len(self.decl.layout.dims) == 3

    def matrices(self, tensor: torch.Tensor) -> torch.Tensor:
        """(matrices, outputs, inputs) of the tensor on disk."""
        t = tensor if self.stacked else tensor[None]
        return t.transpose(-1, -2) if self.input_first else t

    def tensor(self, matrices: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`matrices`."""
        t = matrices.transpose(-1, -2) if self.input_first else matrices
        return (t if self.stacked else t[0]).contiguous()


def _matrix(decl: TensorDecl) -> bool:
    """Whether at least two dimensions hold something."""
    return sum(not isinstance(d, lo.Literal) for d in decl.layout.dims) >= 2


#: (does it hold?, why the tensor stays as it is): the first that holds decides.
RULES: tuple[tuple[Callable[[TensorDecl], bool], str], ...] = (
    (lambda t: t.layer is None and _matrix(t), "outside the layers: embedding, positions or head"),
    (lambda t: len(t.layout.dims) == 2 and t.layout.dims[0] == lo.Literal(1), "a gate with one output"),
    (lambda t: not _matrix(t), "a vector: nothing to solve for"),
    (lambda t: t.name.endswith("bias"), "a bias"),
    (lambda t: len(t.layout.dims) == 3 and t.layout.dims[1] == lo.Literal(1), "a depthwise convolution"),
    (lambda t: t.name.endswith("A_log"), "the decay of the state: a zero there removes nothing"),
    (
        lambda t: t.layout.dims[0] == lo.Axis("E") and len(t.layout.dims) == 2,
        "the router: which experts run hangs on it",
    ),
)


def left(anatomy: Anatomy) -> dict[str, str]:
    """Declared tensors that are no linears, with the reason."""
    found = {}
    for decl in anatomy.tensors.values():
        why = next((why for holds, why in RULES if holds(decl)), None)
        if why is not None:
            found[decl.name] = why
    return found


def places(layer: Layer) -> Iterator[Place]:
    """Every linear that runs in ``layer``; its parameters may be on the meta device.

    Raises LayoutError for a tensor that is neither left by a rule nor found in the block.
    """
    experts = fused(layer)
    for decl, shared in _met(layer):
        if any(holds(decl) for holds, _ in RULES):
            continue
        yield _place(layer, decl, shared, experts)


def _met(layer: Layer) -> Iterator[tuple[TensorDecl, bool]]:
    """Tensors on disk that the layer uses, and whether others use them too."""
    anatomy = layer.anatomy
    prefix = None if anatomy.family.shared is None else anatomy.family.shared.prefix
    user = anatomy.shared_users.index(layer.index) if layer.index in anatomy.shared_users else None
    owner = None if user is None else anatomy.owner(anatomy.block_of(layer.index))
    for decl in anatomy.tensors.values():
        inside = prefix is not None and decl.pattern.startswith(prefix)
        if not inside and decl.layer == layer.index:
            yield decl, False
        elif inside and decl.layer == owner and decl.env.get("S", user) == user:
            yield decl, "S" not in decl.env


def _place(layer: Layer, decl: TensorDecl, shared: bool, experts: nn.Module | None) -> Place:
    from transformers.pytorch_utils import Conv1D

    found = parameter(layer.block, decl.key, lo.shape(decl.layout, layer.anatomy.sizes))
    if "E" in decl.env or "E" in lo.axes_of(decl.layout.dims[0]):
        if experts is not None:
            transposed = found is not None and found[0] is experts and bool(experts.is_transposed)
            return Place(decl, _expert_role(decl, transposed), transposed, expert=decl.env.get("E"), shared=shared)
    elif found is not None and len(decl.layout.dims) == 2:
        return Place(decl, "linear", isinstance(found[0], Conv1D), *found, shared=shared)
    elif found is not None and len(decl.layout.dims) == 3 and decl.layout.dims[1] == decl.layout.dims[2]:
        return Place(decl, "blocks", True, *found, shared=shared)
    raise LayoutError(
        f"tensor {decl.name!r}, layout {decl.layout.text!r}: no rule says whether it is a linear and where it runs",
        hint="add a rule to secateur/layerwise/places.py",
    )


def _expert_role(decl: TensorDecl, transposed: bool) -> Role:
    """The second matrix of an expert reads the expert's inner channels, the first one writes them."""
    out, into = decl.layout.dims[-2:]
    return "second" if "fe" in lo.axes_of(out if transposed else into) else "first"


def parameter(block: nn.Module, key: str, shape: tuple[int, ...]) -> tuple[nn.Module, str] | None:
    """(module, attribute) of the parameter that is the tensor ``key``; None when it is fused away.

    transformers moves some modules when it loads: the longest ending of the key that fits one parameter of that shape
    is taken.
    """
    fitting = {n for n, p in block.named_parameters(remove_duplicate=False) if tuple(p.shape) == shape}
    parts = key.split(".")
    for start in range(len(parts)):
        ending = ".".join(parts[start:])
        found = [n for n in fitting if n == ending or n.endswith(f".{ending}")]
        if found:
            if len(found) > 1 or ending in ("weight", "bias"):
                return None
            path, _, attribute = found[0].rpartition(".")
            return block.get_submodule(path), attribute
    return None
