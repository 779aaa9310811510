"""Held-out loss after layer-wise compression: models x methods x levels x seeds, each cell once, resumable.

python -m benchmarks.layerwise.run sparsify --name hybrid --parent FOLDER --text A.txt .. --held-out B.txt --work W
python -m benchmarks.layerwise.table [--write]

A family of methods is a module here (FILE, LEVELS, ROWS, cells()); results go to benchmarks/results/layerwise-*.jsonl.
Every cell calibrates on windows drawn from ``--text`` under its seed, the last batch judging, and is measured on the
same piece of ``--held-out``.
"""
