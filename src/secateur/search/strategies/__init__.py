"""Strategies, one a file. ``STRATEGIES`` is the list users see."""

from __future__ import annotations

from secateur.search.strategies import (
    bonsai,
    compressor,
    darwinlm,
    evolutionary,
    evopress,
    exhaustive,
    logit_mse,
    minitron,
    multipruner,
    search_llm,
    shedder,
    shortgpt,
    sleb,
    streamline,
    ten_largest,
    uniform,
)
from secateur.search.strategies.base import Agreement, Effort, Outcome, Strategy

STRATEGIES: dict[str, Strategy] = {
    "evolutionary": evolutionary.search,
    "minitron": minitron.search,
    "darwinlm": darwinlm.search,
    "search-llm": search_llm.search,
    "multipruner": multipruner.search,
    "compressor": compressor.search,
    "ten-largest": ten_largest.search,
    "uniform": uniform.search,
    # layers only
    "shedder": shedder.search,
    "shortgpt": shortgpt.search,
    "sleb": sleb.search,
    "streamline": streamline.search,
    "logit-mse": logit_mse.search,
    "evopress": evopress.search,
    "bonsai": bonsai.search,
    "exhaustive": exhaustive.search,
}

__all__ = ["STRATEGIES", "Agreement", "Effort", "Outcome", "Strategy"]
