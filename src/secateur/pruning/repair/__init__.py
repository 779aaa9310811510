"""Repair without gradients: what closed forms can win back right after a cut."""
