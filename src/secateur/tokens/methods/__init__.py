"""Token reduction methods, one a file. ``METHODS`` is the list users see."""

from __future__ import annotations

from secateur.tokens.choice import Method
from secateur.tokens.methods import evit, importance, pumer, random, stride, utrc

METHODS: dict[str, Method] = {
    "utrc": Method(utrc.choose, scores=True, matches=True),
    "evit": Method(evit.choose, scores=True, matches=False),
    "pumer": Method(pumer.choose, scores=False, matches=True),
    "importance": Method(importance.choose, scores=True, matches=False),
    "random": Method(random.choose, scores=False, matches=False),
    "stride": Method(stride.choose, scores=False, matches=False),
}

__all__ = ["METHODS"]
