"""All rows, one per family."""

from __future__ import annotations

from . import rows_recurrent, rows_ssm, rows_transformer
from .row import VOCAB, Row

ROWS: dict[str, Row] = {**rows_ssm.ROWS, **rows_recurrent.ROWS, **rows_transformer.ROWS}

__all__ = ["ROWS", "VOCAB", "Row"]
