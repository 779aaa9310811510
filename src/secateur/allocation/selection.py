"""Selection in stages with elitism (EvoPress, arXiv 2410.14649): cheap measures thin out, dear ones decide.

Stage s measures the survivors of stage s - 1 and keeps the best ``keep``; in the last stage the parent is measured
beside them on the same data, and the best becomes the parent. The parent wins ties, then the earlier child.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

C = TypeVar("C", bound=Hashable)


@dataclass(frozen=True)  # no slots: Stage[Choice](...) notes its type on the object
class Stage(Generic[C]):
    """Measure the survivors so far, keep the best ``keep``. The last stage keeps one, whatever it says.

    ``measure``: (choices, generation) -> one loss each; the generation lets a measure draw fresh data every time.
    """

    keep: int
    measure: Callable[[Sequence[C], int], Sequence[float]]


def select(stages: Sequence[Stage[C]], parent: C, children: Sequence[C], generation: int) -> tuple[C, float]:
    """The winner of a generation and its loss."""
    survivors = [c for c in dict.fromkeys(children) if c != parent]
    for stage in stages[:-1]:
        if len(survivors) > stage.keep:
            losses = stage.measure(survivors, generation)
            order = sorted(range(len(survivors)), key=lambda i: losses[i])
            survivors = [survivors[i] for i in order[: stage.keep]]
    finalists = [parent, *survivors]
    losses = stages[-1].measure(finalists, generation)
    best = min(range(len(finalists)), key=lambda i: losses[i])
    return finalists[best], float(losses[best])
