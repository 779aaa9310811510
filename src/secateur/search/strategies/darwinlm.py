"""DarwinLM (Tang et al., arXiv 2502.07780): training-aware selection, for what heals well is not what starts well.

The evolutionary loop, but survivors of every stage are distilled before they are measured again, longer at each stage
(10k, 50k, 100k, 200k tokens there; here halves, quarters ... of the effort's). The trained copies are thrown away: what
is inherited is the shape. Without tokens to train on this is the evolutionary strategy, choice by choice.

Differences: the levels are axis sizes instead of layers pruned by structured OBS, and the fine-tuning is distillation.
"""

from __future__ import annotations

from secateur.search.arena import Arena
from secateur.search.evolve import contenders, evolve
from secateur.search.ladder import finals
from secateur.search.strategies.base import Outcome
from secateur.search.strategies.evolutionary import stages


def search(arena: Arena) -> Outcome:
    start = arena.space.random(arena.rng, arena.effort.initial)
    vary = lambda c: arena.space.mutate(c, arena.rng)  # noqa: E731
    parents, why = evolve(arena, start, vary, stages(arena, heal=arena.effort.heal))
    outcome = finals(arena, contenders(arena, parents), parents=len(parents))
    return outcome.noting(why)
