"""Compressor's rule for CompactLM: no model is run at all; of the shapes within a size, the one that computes most.

A genetic search maximises the operations per token under the budget: a population of shapes, of which the better half
stays and has offspring by crossover (each axis from one parent or the other) and by level switches.

The thought behind it: at equal parameters, those that are used more often per token (shared, recurrent, attended) are
worth more. It is the cheapest strategy by far; whether the thought holds is what the others are for.
"""

from __future__ import annotations

from secateur.search.arena import Arena
from secateur.search.candidates import Candidate
from secateur.search.crossover import crossed
from secateur.search.resources import RESOURCES, Workload
from secateur.search.strategies.base import Outcome

POPULATION = 32


def search(arena: Arena) -> Outcome:
    space, rng, work = arena.space, arena.rng, Workload(arena.bench.windows.shape[1])
    meter = RESOURCES["prefill_flops"].meter(arena.model, work)

    def operations(candidate: Candidate) -> int:
        return int(meter(space.sizes(candidate), frozenset(candidate.layers)))

    population = arena.fitting(space.random(rng, POPULATION))
    for _ in range(arena.effort.generations):
        population = sorted(dict.fromkeys(population), key=lambda c: (-operations(c), c))[: max(2, POPULATION // 2)]
        while len(population) < POPULATION:
            a, b = (population[int(i)] for i in rng.integers(0, len(population), 2))
            population.append(space.mutate(crossed(space, a, b, rng), rng))
    best = min(population, key=lambda c: (-operations(c), c))
    stage = arena.stage("zero-shot", max(arena.effort.tokens))
    arena.score([best], stage)
    return Outcome(best, stage, details={"operations": operations(best)})
