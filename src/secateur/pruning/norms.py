"""What a cut does to normalisation, so that the smaller model equals the masked one.

A masked vector divides by its full width n, a cut one by k, so ``slice = sqrt(k/n) * mask``. Exact equality needs
``weight * sqrt(n/k)`` and ``eps * n/k``. The weight half is always applied. For the eps half there are two ways:

* ``config``: every norm that reads the config's one eps field shrinks by the same ratio, so the field carries it;
* ``eps-exact``: the residual stream itself is scaled by ``s = sqrt(k/n)`` - every matrix that writes to it by s, norm
  weights by 1/s, and a tied head is undone in the final norm - which makes hidden cuts exact at the config's own eps.

LayerNorm subtracts a mean that also changes with the width; no factor repairs that, so nothing is applied there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from secateur.anatomy import expr
from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy, TensorDecl
from secateur.anatomy.sizes import Env
from secateur.errors import UsageError

NormMode = Literal["auto", "eps-exact", "none"]


@dataclass(frozen=True, slots=True)
class NormPlan:
    """Factors for one cut. ``eps``: new value of the config's eps field, or None when it stays."""

    anatomy: Anatomy
    new: Mapping[str, int]
    mode: NormMode
    eps: float | None
    exact: bool
    why: str

    def factor(self, decl: TensorDecl) -> float:
        """The number a tensor is multiplied by after slicing (1.0 = untouched)."""
        old, new, family = self.anatomy.sizes, self.new, self.anatomy.family
        f = 1.0
        before = lo.norm_extent(decl.layout, old)
        if before is not None and self.mode != "none":
            f *= math.sqrt(before / (lo.norm_extent(decl.layout, new) or before))
        scale = family.rescale.get(f"{decl.kind}:{decl.pattern}", family.rescale.get(decl.pattern))
        if scale is not None:
            config = self.anatomy.config
            f *= expr.evaluate(scale, Env(new, config)) / expr.evaluate(scale, Env(old, config))
        if self.mode == "eps-exact" and old["d"] != new["d"]:
            s = math.sqrt(new["d"] / old["d"])
            f *= s if _writes_residual(decl) else 1.0
            if decl.layer is None and before is not None and self.anatomy.tied:
                f /= s
        return f


def _writes_residual(decl: TensorDecl) -> bool:
    """The embedding and every matrix or bias whose output is the residual stream (Linear: [out, in])."""
    is_norm = lo.norm_extent(decl.layout, dict.fromkeys(decl.layout.axes, 1)) is not None
    if is_norm or decl.pattern.startswith("lm_head"):
        return False
    dims = decl.layout.dims
    if decl.layer is None:
        return dims[-1] == lo.Axis("d")
    return dims[-2 if len(dims) > 1 else -1] == lo.Axis("d")


def plan_norms(anatomy: Anatomy, new: Mapping[str, int], mode: NormMode = "auto") -> NormPlan:
    """Decide how norms are corrected for a cut to ``new`` sizes.

    Raises UsageError when ``eps-exact`` is asked of a family whose residual stream it does not fit.
    """
    family, old = anatomy.family, anatomy.sizes
    ratios = {n / k for n, k in _extents(anatomy, new)}
    if mode == "none":
        return NormPlan(anatomy, new, mode, None, ratios <= {1.0}, "norm weights are left as they were")
    if mode == "eps-exact" and old["d"] != new["d"] and family.eps_exact:
        raise UsageError(f"eps-exact norms do not fit {family.model_type}: {family.eps_exact}")
    if old["d"] != new["d"] and any(layout.norm == "ln" for layout in _norm_layouts(anatomy)):
        return NormPlan(anatomy, new, "auto", None, False, "LayerNorm subtracts a mean that changes with the width")
    if ratios <= {1.0}:
        return NormPlan(anatomy, new, "auto", None, True, "no norm sees a cut axis")
    if mode == "eps-exact":
        rest = {n / k for n, k in _extents(anatomy, new, skip_hidden=True)} - {1.0}
        why = "residual stream rescaled" if not rest else "residual stream rescaled; inner norms keep the config's eps"
        return NormPlan(anatomy, new, mode, None, not rest, why)
    eps = anatomy.config.get(family.eps_field) if family.eps_field else None
    if isinstance(eps, float) and len(ratios) == 1:
        return NormPlan(anatomy, new, mode, eps * ratios.pop(), True, "the config's eps carries the rest")
    return NormPlan(anatomy, new, mode, None, False, "norms shrink by different ratios and share one eps field")


def _extents(anatomy: Anatomy, new: Mapping[str, int], skip_hidden: bool = False) -> list[tuple[int, int]]:
    """(old, new) width of every norm, weightless ones included."""
    out = []
    for layout in _norm_layouts(anatomy):
        n = lo.norm_extent(layout, anatomy.sizes)
        if n is not None and not (skip_hidden and layout.axes == ("d",)):
            out.append((n, lo.norm_extent(layout, new) or n))
    return out


def _norm_layouts(anatomy: Anatomy) -> list[lo.Layout]:
    return [g.layout for g in anatomy.groups] + [lo.parse(t) for t in anatomy.family.weightless_norms]
