"""Recipes: the whole road from a parent to a healed child as one file of steps."""
