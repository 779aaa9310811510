"""The functions behind ``import secateur as sc``, and behind the verbs of the command line.

Each loads what it needs when it is called. ``Source``: a checkpoint folder, a hub id, or what :func:`open` returned.
``Text``: a file (.txt, .jsonl, .parquet), a folder of them, ``hf://owner/name[:config]``, or several of these.
``progress`` functions are told (what is being done, how much of it is done, of how much). Whatever cannot be used
raises a subclass of SecateurError that names the value, what was expected, and the next step.
"""

from __future__ import annotations

from secateur.api.common import Progress, Source, Text, open
from secateur.api.cut import REPAIR_LENGTH, REPAIR_METHODS, REPAIR_SAMPLES, prune, repair
from secateur.api.judge import evaluate, report, verify
from secateur.api.layerwise import export, factorize, quantize, sparsify
from secateur.api.shape import calibrate, cost, plan, search, shed
from secateur.api.tokens import reduce_tokens, schedule
from secateur.api.train import distill

__all__ = [
    "REPAIR_LENGTH",
    "REPAIR_METHODS",
    "REPAIR_SAMPLES",
    "Progress",
    "Source",
    "Text",
    "calibrate",
    "cost",
    "distill",
    "evaluate",
    "export",
    "factorize",
    "open",
    "plan",
    "prune",
    "quantize",
    "reduce_tokens",
    "repair",
    "report",
    "schedule",
    "search",
    "shed",
    "sparsify",
    "verify",
]
