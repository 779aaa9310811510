"""Block influence (ShortGPT, arXiv 2403.03853): how much a layer turns the residual stream.

BI = 1 - mean over tokens of cos(x, x')         x, x' residual stream before and after the layer
"""

from __future__ import annotations

from typing import Any

import torch

from secateur.calibration.observer import Layer


class BlockInfluence:
    """State ``"<layer>/block/out/cosine"`` and ``".../tokens"``: sums over tokens, shape (1,)."""

    def __init__(self) -> None:
        self.state: dict[str, torch.Tensor] = {}

    def __repr__(self) -> str:
        return "BlockInfluence(v1)"

    def attach(self, layer: Layer) -> list[Any]:
        """No hooks: the walker hands the stream over."""
        return []

    def block(self, layer: Layer, before: torch.Tensor, after: torch.Tensor) -> None:
        """Add the cosines of one batch."""
        cosine = torch.nn.functional.cosine_similarity(before.float(), after.float(), dim=-1)
        for what, value in (
            ("cosine", cosine.double().sum()),
            ("tokens", cosine.new_tensor(cosine.numel(), dtype=torch.float64)),
        ):
            key = f"{layer.index}/block/out/{what}"
            self.state[key] = value[None] + self.state[key].to(value.device) if key in self.state else value[None]
