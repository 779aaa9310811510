"""Halving a trained hybrid: what cutting costs, what closed-form repair and healing bring back, and against what.

    export SECATEUR_DATA=FOLDER                 # FOLDER/train/*.txt and FOLDER/eval/*heldout*.txt
    python -m benchmarks.halving.run oneshot healing axes --parent CHECKPOINT --work OUT

from the repository root. Every run is one unit named by its settings; its result is one line of
``benchmarks/results/halving-*.jsonl``. Units whose line is there are skipped, and the same command may be started
several times at once: each takes units that no other holds. ``python -m benchmarks.halving.table`` prints the tables.
"""
