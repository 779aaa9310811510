"""What all benchmarks share: runs as resumable units, and tables written into a README from results alone."""
