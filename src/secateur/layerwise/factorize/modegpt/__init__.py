"""MoDeGPT (arXiv 2408.09632): pairs of matrices compressed together. One of its three modules a file."""
