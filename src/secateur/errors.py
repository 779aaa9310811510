"""Errors a person can act on.

Every error names the value, the place, what was expected and the next step. The command line turns each of them
into one clear message and exit code 2; a traceback is always a defect of ours.
"""

from __future__ import annotations


class SecateurError(Exception):
    """Something the user can mend. ``hint`` says how."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class CheckpointError(SecateurError):
    """Bytes or files on disk are not what a checkpoint must be."""


class ConfigError(SecateurError):
    """config.json is missing, malformed, or says something the family does not allow."""


class LayoutError(SecateurError):
    """A layout string is malformed, or a tensor does not fit its layout."""


class InexpressibleError(SecateurError):
    """The wanted shape cannot be written down in the family's config. ``nearest`` lists shapes that can."""

    def __init__(self, message: str, *, hint: str | None = None, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.nearest = nearest


class BudgetError(SecateurError):
    """No shape fits the budget; the message says what is closest."""


class UsageError(SecateurError):
    """Options or arguments that do not make sense together."""
