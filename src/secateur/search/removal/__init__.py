"""Depth and its finer grains: what may be removed, how far a model is from itself without it, and searches over that.

    places      what may go, at every granularity, and the budget a choice keeps
    masked      a model in memory without some units
    silent      how each kind of unit is taken out there
    found       results, greedy and one-shot walks
    replacement one trained layer for several

What the units are on disk: :mod:`secateur.pruning.removed`, :mod:`secateur.pruning.silenced`. The methods, one a file:
:mod:`secateur.search.strategies`.
"""
