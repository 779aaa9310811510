"""Measuring what a cut did."""
