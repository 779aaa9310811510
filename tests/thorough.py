"""How much is tried: less in `make test`, all of it in `make test-long`."""

from __future__ import annotations

import os

THOROUGH = os.environ.get("SECATEUR_THOROUGH", "") not in ("", "0")


def trials(usual: int, thorough: int) -> int:
    """How many random trials a test makes."""
    return thorough if THOROUGH else usual
