"""Search for Efficient LLMs (arXiv 2409.17372): evolution of the masks themselves, weights reformed in closed form.

    genome      the shape, and which heads, channels ... stay
    mutation    a structure mutation (chance ``STRUCTURE``) turns the shape and lets the criterion choose its units;
                otherwise each group of units swaps one with chance ``UNITS``
    crossover   of two genomes of one shape: each group of units from either
    fitness     KL on calibration text; the best after the reformation wins

Reformation is min ||(W' - W) X|| over W' with the mask fixed. The paper solves it by ADMM, whose limit for structured
masks is plain least squares on the support; ours is that closed form, which is cheaper (one factorisation for all rows)
and is done for the last survivors only. Chances are those of the released code (0.4 and 0.2).

Differences: sizes of an axis are the same in all layers, as configs say them; the start is the criterion's choice
instead of inherited ratios; the gene that shifts the kept range (``weight_start``) is what unit swaps do here.
"""

from __future__ import annotations

from secateur.search.arena import Arena
from secateur.search.evolve import contenders, evolve
from secateur.search.genome import Genome, crossed_units, genome, mutated
from secateur.search.ladder import Rung, climb
from secateur.search.outcome import Outcome
from secateur.search.strategies.evolutionary import stages

STRUCTURE, UNITS, CROSS = 0.4, 0.2, 0.3


def search(arena: Arena) -> Outcome:
    space, rng, anatomy = arena.space, arena.rng, arena.model.anatomy
    start = [genome(c, arena.bench) for c in space.random(rng, arena.effort.initial)]
    family: list[Genome] = list(start)

    def vary(parent: Genome) -> Genome:
        drawn = rng.random()
        if drawn < STRUCTURE:
            child = genome(space.mutate(parent.candidate, rng), arena.bench)
        elif drawn < STRUCTURE + CROSS and (kin := [g for g in family if g.candidate == parent.candidate]):
            child = crossed_units(parent, kin[int(rng.integers(len(kin)))], anatomy, rng)
        else:
            child = mutated(parent, anatomy, rng, UNITS)
        family.append(child)
        return child

    parents, why = evolve(arena, start, vary, stages(arena))
    effort, tokens = arena.effort, max(arena.effort.tokens)
    rungs = [Rung(arena.stage("zero-shot", tokens), effort.finalists)]
    if arena.bench.lessons is not None:
        rungs.append(Rung(arena.stage("reformed", tokens, repair=True), 1))
    climbed = climb(arena, contenders(arena, parents), rungs)
    advice = "cut it with --plan, then secateur repair: the ranking is of the repaired model"
    notes = (why, *climbed.notes, *([advice] if len(rungs) > 1 else []))
    return Outcome(climbed.best[0], climbed.stage, climbed.agreements, notes)
