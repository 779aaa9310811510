"""Where in a model an axis shows itself: inputs and outputs of observed linears, read off the layouts.

``ssm_heads`` at the x part of in_proj's output, ``ffn`` at the input of down_proj ``d f``, attention heads at that of
o_proj ``d (k r c)``, channels of queries and keys at the output of their projections.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.grids import grids
from secateur.anatomy.sizes import tied_axes
from secateur.calibration.stats import Stats

Vector = NDArray[np.float64]
#: Axes of a Mamba mixer that the x part of in_proj shows before the convolution, the best source in arXiv 2504.11409.
_BEFORE_CONV = ("g", "h", "p", "c1")


@dataclass(frozen=True, slots=True)
class Place:
    """Channels of one linear or norm in one layer.

    ``node``: the layout of that dimension; ``dim``: its number in the tensor; ``label``: the part that counts.
    """

    layer: int
    tensor: str
    side: str
    node: lo.Node
    dim: int = 0
    label: str | None = None

    def grids(self, vector: Vector, anatomy: Anatomy) -> list[tuple[Vector, list[str]]]:
        """The vector's part(s) as arrays over named axes."""
        found = grids(self.node, vector, anatomy.sizes)
        return [(array, names) for array, names, label in found if self.label is None or label == self.label]


def sources(anatomy: Anatomy, stats: Stats, axis: str) -> list[list[Place]]:
    """Places that show ``axis``, best kind first: x parts, inputs of residual writers, other inputs, outputs."""
    linears = [(into, out) for into, out in _linears(anatomy, stats)]
    inputs = [into for into, _ in linears if axis in lo.axes_of(into.node)]
    outputs = [out for _, out in linears if axis in lo.axes_of(out.node)]
    return [_x_parts(outputs, axis) if axis in _BEFORE_CONV else [], readers(anatomy, stats, axis), inputs, outputs]


def readers(anatomy: Anatomy, stats: Stats, axis: str) -> list[Place]:
    """Inputs of the linears that read ``axis`` and write the residual stream (or a width tied to it)."""
    stream = {lo.Axis(a) for a in tied_axes(anatomy.family, "d")}
    return [i for i, o in _linears(anatomy, stats) if o.node in stream and axis in lo.axes_of(i.node)]


def norms(anatomy: Anatomy) -> Iterator[Place]:
    """Outputs of the norms over the residual stream: where ``hidden`` is scored."""
    for layer in range(anatomy.n_layers):
        for _, _, name, layout in anatomy.layer_tensors(layer):
            is_norm = layout.norm == "ln" or isinstance(layout.dims[0], lo.Norm)
            if is_norm and layout.axes == ("d",) and len(layout.dims) == 1 and name.endswith("weight"):
                yield Place(layer, name, "out", layout.dims[0])


def statistic(stats: Stats, place: Place, what: str) -> Vector | None:
    """One statistic at a place, None when the walk did not collect it there."""
    return stats.get(place.layer, place.tensor, place.side, what)


def stored(anatomy: Anatomy, place: Place) -> str:
    """On-disk name of the place's tensor; a shared block's lies with the first layer that uses it."""
    shared, layer = anatomy.family.shared, place.layer
    if shared is not None and place.tensor.startswith(shared.prefix):
        layer = anatomy.owner(anatomy.block_of(layer))
    return anatomy.layer_prefix(layer) + place.tensor


def _linears(anatomy: Anatomy, stats: Stats) -> Iterator[tuple[Place, Place]]:
    """(input, output) of every matrix; how a matrix is stored is known from the walk."""
    for layer in range(anatomy.n_layers):
        for _, _, name, layout in anatomy.layer_tensors(layer):
            if len(layout.dims) == 2 and "{E}" not in name:
                into, out = (0, 1) if name in stats.input_first else (1, 0)
                yield (
                    Place(layer, name, "in", layout.dims[into], into),
                    Place(layer, name, "out", layout.dims[out], out),
                )


def _x_parts(outputs: list[Place], axis: str) -> list[Place]:
    """The parts labelled ``x`` that hold ``axis``."""
    found = []
    for place in outputs:
        parts = zip(place.node.parts, place.node.labels, strict=True) if isinstance(place.node, lo.Sum) else ()
        if any(label == "x" and axis in lo.axes_of(part) for part, label in parts):
            found.append(Place(place.layer, place.tensor, "out", place.node, place.dim, "x"))
    return found
