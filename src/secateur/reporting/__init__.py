"""One self-contained HTML page out of what was measured."""

from secateur.reporting.collect import Collected, collect
from secateur.reporting.page import render, write

__all__ = ["Collected", "collect", "render", "write"]
