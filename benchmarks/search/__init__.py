"""Is a searched shape worth its search, and is a latency asked for the latency that comes out?

    python -m benchmarks.search.run shapes latency --parent CHECKPOINT --name hybrid --work OUT

from the repository root; without ``--text`` and ``--held-out`` on the texts that come with the package. Every run is
one unit named by its settings; its result is one line of ``benchmarks/results/search-*.jsonl``, and units whose line is
there are skipped. ``python -m benchmarks.search.table`` prints the tables.
"""
