"""MultiPruner (arXiv 2501.09949): three kinds of structure in turn, coarse to fine: blocks, MLP channels, heads.

    for phase in (layers, MLP channels, heads):
        until its share of what is to be saved is saved:
            take the step of this phase after which the KL is lowest

The shares are the paper's for its Llama-2 7B result, 44 : 52 : 4; what a phase cannot save is left to the next one, and
at the end any phase may help. With several limits, what counts is the one that is used most.

Differences: the paper prunes channels and heads of each block by its own amount. Configs of transformers say one width
for all layers, so a step here narrows all of them, in units its kernels like; a non-uniform result would need an engine
that reads one. Which units go is the criterion's choice, not a fixed order by weight.
"""

from __future__ import annotations

from secateur.search.arena import Arena
from secateur.search.candidates import Candidate
from secateur.search.ladder import SEARCHING, finals
from secateur.search.outcome import Outcome

#: Symbols of axes by phase; what is in neither (hidden, states) is left alone, as in the paper.
CHANNELS = frozenset({"f", "fe", "fs", "E", "c1", "cc"})
HEADS = frozenset({"k", "r", "a", "h", "g", "gk", "gr", "b"})
SHARES = {"layers": 0.44, "channels": 0.52, "heads": 0.04}


def search(arena: Arena) -> Outcome:
    now, stage = arena.space.whole(), arena.stage("zero-shot", min(arena.effort.tokens))
    over, saved, notes = _used(arena, now) - 1, 0.0, list[str]()
    path = [now]
    for phases in [*([name] for name in SHARES), list(SHARES)]:
        saved += SHARES[phases[0]] if len(phases) == 1 else 0.0
        target = 1 + over * (1 - saved) if len(phases) == 1 else 1.0
        while _used(arena, now) > max(1.0, target) and not arena.space.fits(now):
            steps = [c for c in arena.space.steps(now, down=True) if _phase(arena, now, c) in phases]
            steps = [c for c in steps if arena.space.can_be_said(c)]
            if not steps:
                break
            now = arena.rank(steps, stage)[0] if arena.goes_on(SEARCHING) else steps[0]
            path.append(now)
    if not arena.space.fits(now):
        now = arena.space.shrunk(now, arena.rng)
        notes.append("layers, channels and heads were not enough: other axes gave as well")
    notes += [] if arena.goes_on(SEARCHING) else ["the time for searching was over: the last steps were not compared"]
    grown = arena.space.grown(now, arena.rng)
    fitting = [c for c in (now, grown) if arena.space.can_be_said(c)]
    return finals(arena, fitting, steps=len(path) - 1).noting(*notes)


def _phase(arena: Arena, before: Candidate, after: Candidate) -> str:
    """Which phase a step belongs to, by the axes it turns."""
    if before.layers != after.layers:
        return "layers"
    turned = {d.axis.symbol for d in arena.space.dials if before.keep[d.axis.name] != after.keep[d.axis.name]}
    return "channels" if turned <= CHANNELS else "heads" if turned <= HEADS else ""


def _used(arena: Arena, candidate: Candidate) -> float:
    return float(arena.space.budget.used(arena.space.sizes(candidate), frozenset(candidate.layers)))
