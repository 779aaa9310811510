"""Gated-delta, short-convolution and gated linear recurrence hybrids."""

from __future__ import annotations

from .row import Row

ROWS: dict[str, Row] = {}
