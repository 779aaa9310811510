"""Calibration: one walker streams blocks over real text; observers say what to collect."""
