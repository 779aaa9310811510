"""What a layer-wise method gets, what it returns, and how it is listed.

A method is one file: its formula in ``solve(problem, settings) -> Solution``, a frozen ``Settings`` dataclass whose
fields are its options, and one ``METHOD = Method(...)``. The registries SPARSIFY, QUANTIZE and FACTORIZE (in
``sparsify/``, ``quantize/``, ``factorize/``) map names to methods. The engine finds the linears, gathers the Grams,
calls ``solve`` once for each, hands ``Solution.weight`` on to later layers and ``Solution.parts`` to whoever stores it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch

from secateur.errors import SecateurError, UsageError
from secateur.layerwise.gram import Gram


class Unfit(SecateurError):  # noqa: N818  # no failure of the run: the linear stays as it is, and the audit says why
    """Raised by a method for a linear it cannot work on (inputs that do not divide into groups, say)."""


Needs = Literal["nothing", "diagonal", "gram"]
"""What a method reads: weights only, the squared norm of each input (``gram.diagonal``), or all of it."""


@dataclass(frozen=True)
class Problem:
    """One linear, as ``y = W x + b``, whatever way round the file stores it.

    ``name``: of the tensor on disk; ``stored`` (m, d): the weight as it was read, not to be changed; ``gram``: of its
    inputs (zeros, no tokens, for methods that need nothing); ``bias`` (m,) or None; ``kind``: its sub-block (mamba,
    attention, mlp, moe, ..); ``layer``: None outside the layers; ``expert``: which matrix of a fused tensor this is;
    ``dtype``: of the file.
    """

    name: str
    stored: torch.Tensor
    gram: Gram
    bias: torch.Tensor | None = None
    kind: str = ""
    layer: int | None = None
    expert: int | None = None
    dtype: torch.dtype = torch.float32

    @cached_property
    def weight(self) -> torch.Tensor:
        """W (m, d) float64."""
        return self.stored.double()

    @cached_property
    def fast(self) -> torch.Tensor:
        """W (m, d) in the dtype of sweeps, half the memory of :attr:`weight`; not to be changed."""
        return self.stored.to(self.working)

    @property
    def energy(self) -> float:
        """tr(W C W^T): what errors are relative to."""
        return self.gram.error(self.fast)

    def error(self, weight: torch.Tensor) -> float:
        """tr((W - W') C (W - W')^T) of another weight (m, d)."""
        return self.gram.error(self.fast - weight.to(self.working))

    @property
    def working(self) -> torch.dtype:
        """What column sweeps and errors are computed in: float32, unless the file holds more than that."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Solution:
    """``weight`` (m, d): what the layer will compute with (masked, dequantised, multiplied out), before it is rounded
    to the dtype of the file.

    ``parts``: what a storage writer needs instead (mask; codes, scales, zeros; left, right; ..). ``error``: the
    predicted tr((W - W') C (W - W')^T). ``nbytes``: bytes of the parts when they are stored. ``notes``: for the audit.
    """

    weight: torch.Tensor
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)
    error: float = 0.0
    nbytes: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A line of a registry. ``about``: one line of help, with the paper."""

    name: str
    about: str
    needs: Needs
    settings: type[Any]
    solve: Callable[[Problem, Any], Solution]

    def configure(self, **given: Any) -> Any:
        """Settings from options; those that are None keep their defaults.

        Raises UsageError for an option this method does not have.
        """
        wanted = {k: v for k, v in given.items() if v is not None}
        known = [f.name for f in dataclasses.fields(self.settings)]
        unknown = [k for k in wanted if k not in known]
        if unknown:
            options = [f"--{k.replace('_', '-')}" for k in known]
            raise UsageError(
                f"--{unknown[0].replace('_', '-')}: method {self.name!r} has no such option",
                hint=f"it has {', '.join(options) or 'none'}",
            )
        return self.settings(**wanted)


def registry(*methods: Method) -> dict[str, Method]:
    """Name -> method."""
    return {m.name: m for m in methods}


def find(methods: Mapping[str, Method], name: str, verb: str) -> Method:
    """The method of that name. Raises UsageError listing those there are."""
    if name not in methods:
        raise UsageError(f"{verb}: unknown method {name!r}", hint=f"expected one of {', '.join(methods)}")
    return methods[name]
