"""Sparsifiers, one file each. Each returns the masked weight and, where it has one, its compensation."""

from __future__ import annotations

from secateur.layerwise.base import registry
from secateur.layerwise.sparsify import block, chita, magnitude, mrp, obc, sparsegpt, swap, wanda

SPARSIFY = registry(*(m.METHOD for m in (magnitude, wanda, sparsegpt, obc, mrp, swap, chita, block)))
