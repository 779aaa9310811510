"""Depth as in Nemotron Nano 2 (arXiv 2508.14444): greedy removal of layers by what it does to the logits.

    R <- R + argmin over l of  mean over tokens and vocabulary of (logits - logits without R + l)^2

Nemotron Elastic (arXiv 2511.16664) divides by the mean square of the logits, which changes no order.
"""

from __future__ import annotations

from secateur.search.removal.found import Found, Watch, greedy, silent
from secateur.search.removal.masked import Masked
from secateur.search.removal.places import Ground


def find(work: Masked, ground: Ground, *, watch: Watch = silent) -> Found:
    """Greedy by the mean square error of the logits."""
    return greedy(work, ground, "mse", watch=watch)
