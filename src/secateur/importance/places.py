"""Where in a model an axis shows itself: the inputs of the matrices that read it, read off the layouts.

``ssm_heads`` at the input of out_proj ``d (g h p)``, ``ffn`` at that of down_proj ``d f``, attention heads at that of
o_proj ``d (k r c)`` - and, where a layout labels a part ``x``, at the matching output slice of in_proj.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.grids import grids
from secateur.calibrate.stats import Stats

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Place:
    """Channels of one linear in one layer. ``node``: the layout of the dimension; ``label``: the part that counts."""

    layer: int
    tensor: str
    side: str
    layout: lo.Layout
    node: lo.Node
    label: str | None = None

    def grids(self, vector: Vector, anatomy: Anatomy) -> list[tuple[Vector, list[str]]]:
        """The vector's part(s) as arrays over named axes."""
        found = grids(self.node, vector, anatomy.sizes)
        return [(array, names) for array, names, label in found if self.label is None or label == self.label]


def readers(anatomy: Anatomy, axis: str) -> Iterator[Place]:
    """Inputs of the linears that read ``axis`` and write the residual stream, layer by layer."""
    for layer in range(anatomy.n_layers):
        for _, _, name, layout in anatomy.layer_tensors(layer):
            if len(layout.dims) == 2 and layout.dims[0] == lo.Axis("d") and axis in lo.axes_of(layout.dims[1]):
                yield Place(layer, name, "in", layout, layout.dims[1])


def projections(anatomy: Anatomy, axis: str, label: str = "x") -> Iterator[Place]:
    """Outputs of the linears whose part ``label`` produces ``axis`` (the x part of a Mamba in_proj)."""
    for layer in range(anatomy.n_layers):
        for _, _, name, layout in anatomy.layer_tensors(layer):
            if len(layout.dims) == 2 and layout.dims[1] == lo.Axis("d"):
                node = layout.dims[0]
                if isinstance(node, lo.Sum) and label in node.labels and axis in _axes_of_label(node, label):
                    yield Place(layer, name, "out", layout, node, label)


def _axes_of_label(node: lo.Sum, label: str) -> list[str]:
    return [a for part, name in zip(node.parts, node.labels, strict=True) if name == label for a in lo.axes_of(part)]


def norms(anatomy: Anatomy) -> Iterator[Place]:
    """Outputs of the norms over the residual stream: where ``hidden`` is scored."""
    for layer in range(anatomy.n_layers):
        for _, _, name, layout in anatomy.layer_tensors(layer):
            if layout.axes == ("d",) and len(layout.dims) == 1 and name.endswith("weight"):
                if layout.norm == "ln" or isinstance(layout.dims[0], lo.Norm):
                    yield Place(layer, name, "out", layout, layout.dims[0])


def statistic(stats: Stats, place: Place, what: str) -> Vector | None:
    """One statistic at a place, None when the walk did not collect it there."""
    return stats.get(place.layer, place.tensor, place.side, what)
