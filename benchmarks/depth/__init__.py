"""Depth: which blocks may go, and how much of a block.

    blocks   KL on held-out text with 12.5, 25 and 37.5% of the blocks gone, by method; every choice for reference
    grain    greedy removal of Mamba blocks against greedy removal of their scans alone

Parents are named on the command line (``--parent mamba2=CHECKPOINT``); see :mod:`benchmarks.depth.run`.
"""
