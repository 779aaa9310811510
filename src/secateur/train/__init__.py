"""Healing: train a cut student to agree with its parent again."""

from secateur.train.run import Places, Reporter, distill
from secateur.train.settings import Settings, TrainingError

__all__ = ["Places", "Reporter", "Settings", "TrainingError", "distill"]
