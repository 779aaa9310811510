"""What a strategy is: a function that is given an arena and finds a shape.

Price of a new strategy: one file whose body is the method, one line in ``STRATEGIES``, one row in
``tests/search/test_strategies.py``.

A strategy asks ``arena.score(candidates, stage)``, which remembers, writes a journal and spreads over processes; makes
candidates with ``arena.space`` (or has a type of its own); draws from ``arena.rng`` alone; and stops between two calls
when ``arena.goes_on()`` says so. It keeps no state elsewhere: an interrupted search starts again from the beginning
and finds every score it asks for in the journal, so it comes to the same place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from secateur.search.outcome import Agreement, Effort, Outcome

if TYPE_CHECKING:
    from secateur.search.arena import Arena


class Strategy(Protocol):
    """Deterministic under the arena's seed. Raises BudgetError when nothing fits."""

    def __call__(self, arena: Arena) -> Outcome: ...


__all__ = ["Agreement", "Effort", "Outcome", "Strategy"]
