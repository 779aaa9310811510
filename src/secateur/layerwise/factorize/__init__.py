"""Thin factors in place of linears. One method a file; the registry is below."""

from secateur.layerwise.base import registry
from secateur.layerwise.factorize import asvd, curing, lord, svd, svd_llm

FACTORIZE = registry(svd.METHOD, asvd.METHOD, svd_llm.METHOD, lord.METHOD, curing.METHOD)

__all__ = ["FACTORIZE"]
