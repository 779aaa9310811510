from __future__ import annotations

from tests.contract.conftest import parents

__all__ = ["parents"]
