"""Several runs of one function side by side: each up to its next :meth:`Together.wait`, then all from there.

The runs are greenlets: one at a time, in order, so sums over them are the same every time. A run must not wait inside a
context that other code has to see left (torch.no_grad, autocast): those belong to the thread, which all runs share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from greenlet import getcurrent, greenlet


class Together:
    """``met``: called with what all runs said at a wait, when the last one has come there."""

    def __init__(self, met: Callable[[Sequence[Any]], None]) -> None:
        self.met = met
        self._hub: Any = None

    def run(self, runs: Sequence[Callable[[], Any]]) -> list[Any]:
        """Results of all runs, which must wait equally often. What one raises ends all of them."""
        self._hub = getcurrent()
        tasks = [greenlet(run) for run in runs]
        try:
            while True:
                said = [task.switch() for task in tasks]
                if all(task.dead for task in tasks):
                    return said
                if any(task.dead for task in tasks):
                    raise RuntimeError("runs side by side took different ways: some ended while others wait")
                self.met(said)
        finally:
            for task in tasks:
                if not task.dead:
                    task.throw()

    def wait(self, said: Any) -> None:
        """From inside a run: until all others have come as far."""
        self._hub.switch(said)
