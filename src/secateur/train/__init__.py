"""Healing: train a cut student to agree with its parent again."""

from secateur.train.held_out import HeldOut
from secateur.train.run import Places, Reporter, distill
from secateur.train.settings import Settings, TrainingError, token_count

__all__ = ["HeldOut", "Places", "Reporter", "Settings", "TrainingError", "distill", "token_count"]
