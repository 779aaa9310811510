"""Plan, cut and repair."""
