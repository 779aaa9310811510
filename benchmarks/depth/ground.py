"""What all units of one parent share: text, and the model in memory, which remembers what it has measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.halving.bench import Bench

from secateur.search.removal.masked import MEASURES, Masked
from secateur.search.removal.places import Removal

SHARES = (12.5, 25.0, 37.5)


@dataclass
class Parent:
    """``pool``: what counts as a block: layers, or where a layer holds two blocks both of them."""

    name: str
    bench: Bench
    works: dict[str, Masked] = field(default_factory=dict)

    @property
    def pool(self) -> str:
        kinds = sorted({k for kinds in self.bench.model.anatomy.kinds for k in kinds})
        return "layer" if len(self.bench.model.anatomy.family.slots) == 1 else " & ".join(kinds)

    def calibration(self, seed: int) -> Masked:
        """The model on training text drawn under ``seed``."""
        if f"seed {seed}" not in self.works:
            self.works = {k: v for k, v in self.works.items() if k == "held-out"}  # one seed's states at a time
            self.works[f"seed {seed}"] = Masked(self.bench.model, self.bench.windows(seed), batch=1)
        return self.works[f"seed {seed}"]

    def judged(self, removal: Removal) -> dict[str, float]:
        """The measures on held-out text."""
        if "held-out" not in self.works:
            self.works["held-out"] = Masked(self.bench.model, self.bench.judged.take(self.bench.chosen)[0])
        costs = self.works["held-out"].costs([removal])
        return {f"held-out {what}": float(costs[what][0]) for what in MEASURES}


def count(share: float, blocks: int) -> int:
    """Blocks that are nearest to a share, at least one."""
    return max(1, round(share / 100 * blocks))
