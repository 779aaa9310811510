"""Warm-up, stable, decay (arXiv 2404.06395): a learning rate that stays put until the run is told to end, then falls
linearly to zero, so a usable model can be had at any time.

The run's position is counted in tokens or in seconds of the wall clock. Under tokens the rate is a pure function of the
position and a resumed run repeats the interrupted one bit for bit; under a clock it depends on how fast the machine is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from secateur.errors import UsageError


@dataclass(frozen=True)
class Schedule:
    """Stable until ``decay``, then linear to zero at ``end``; all three in tokens, or in seconds since 1970."""

    begin: float
    decay: float
    end: float
    clock: bool

    def factor(self, position: float, step: int, warmup: int) -> float:
        """What to multiply the peak rate by."""
        span = max(self.end - self.decay, 1e-9)
        return min(1.0, (step + 1) / warmup) * min(1.0, max(0.0, (self.end - position) / span))

    def done(self, position: float) -> bool:
        return position >= self.end

    def decaying(self, position: float) -> bool:
        return position > self.decay

    def state(self) -> dict[str, Any]:
        return asdict(self)


def plan(begin: float, end: float, share: float, *, clock: bool, decay_now: float | None = None) -> Schedule:
    """Decays over the last ``share`` of begin..end, or from ``decay_now`` on."""
    if end <= begin and decay_now is None:
        raise UsageError(f"the run would end at {end:.0f}, before it begins at {begin:.0f}")
    decay = end - share * (end - begin) if decay_now is None else decay_now
    return Schedule(begin, decay, end, clock)


def wall_clock(text: str, now: datetime) -> float:
    """``HH:MM`` as the next such moment in seconds since 1970."""
    try:
        hour, minute = (int(part) for part in text.split(":"))
        moment = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    except ValueError:
        raise UsageError(f"--until {text!r} is not a time of day", hint="write it as HH:MM, 24 hours") from None
    return (moment if moment > now else moment + timedelta(days=1)).timestamp()
