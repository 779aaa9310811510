"""One self-contained HTML page out of what was measured."""

from secateur.report.collect import Collected, collect
from secateur.report.page import render, write

__all__ = ["Collected", "collect", "render", "write"]
