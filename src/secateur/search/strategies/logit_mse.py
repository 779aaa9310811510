"""Depth as in Nemotron Nano 2 (arXiv 2508.14444): greedy removal of layers by what it does to the logits.

    R <- R + argmin over l of  mean over tokens and vocabulary of (logits - logits without R + l)^2

Nemotron Elastic (arXiv 2511.16664) divides by the mean square of the logits, which changes no order.
"""

from __future__ import annotations

from secateur.search.removal.arena import in_memory, strategy
from secateur.search.removal.found import Found, Watch, Work, greedy, silent
from secateur.search.removal.places import Ground


def find(work: Work, ground: Ground, *, watch: Watch = silent) -> Found:
    """Greedy by the mean square error of the logits."""
    return greedy(work, ground, "mse", watch=watch)


search = strategy(lambda work, ground, arena: find(in_memory(arena), ground))
"""Until the budget of a search is kept; an arena measures no logits' error, so only the winner is in its journal."""
