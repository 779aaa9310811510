"""Mamba-Shedder (arXiv 2501.17088): greedy removal of blocks, scans, attention, MLPs and channel groups.

    U the pool, R what is gone;  each step   R <- R + argmin over u in U of  PPL(model without R + u)

Pools and stages: "mamba & mlp:4" removes four units of one pool; "mamba & mlp:4 + scan:2" then two scans. The
perplexity is exp of the mean over sequences of their mean loss; all have one length here, so the loss ranks alike.

Against the published code: what a removed scan leaves dead is zeroed, counted, and cut out where all scans are gone
(there only D and dt_bias are deleted, and B, C and dt live on); what a step has in common with the last one is not
computed again; any measure may take the place of the perplexity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from secateur.errors import UsageError
from secateur.model import Model
from secateur.search.removal.arena import strategy
from secateur.search.removal.found import Found, Watch, Work, greedy, silent
from secateur.search.removal.masked import Measure
from secateur.search.removal.places import NOTHING, Ground, counted, places


def stages(model: Model, text: str, *, group: int | None = None) -> list[Ground]:
    """``"mamba & mlp:4 + scan:2"`` as grounds. Raises UsageError for anything else."""
    found = []
    for part in text.split("+"):
        pool, colon, count = part.rpartition(":")
        if not colon or not count.strip().isdecimal():
            raise UsageError(f"stage {part.strip()!r}: expected a pool and how many of it go, as in 'mamba & mlp:4'")
        found.append(counted(model, places(model.anatomy, pool, group=group), int(count)))
    return found


def find(work: Work, grounds: Sequence[Ground], *, measure: Measure = "nll", watch: Watch = silent) -> Found:
    """One stage after the other, each going on from what is gone."""
    done = Found(NOTHING, measure, 0.0, 0)
    for ground in grounds:
        stage = greedy(work, ground, measure, already=done.removal, watch=watch)
        done = replace(stage, trials=done.trials + stage.trials, steps=done.steps + stage.steps)
    return done


search = strategy(lambda work, ground, arena: greedy(work, ground, "nll"))
"""Whole layers, until the budget of a search is kept."""
