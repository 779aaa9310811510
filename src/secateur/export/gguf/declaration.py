"""What llama.cpp calls a family's tensors and sizes: a frozen value, no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from secateur.anatomy.family import Rule


@dataclass(frozen=True, kw_only=True)
class Gguf:
    """One architecture of llama.cpp.

    ``tensors``: tensor as the anatomy names it -> where it goes: ``"blk.{L}.ssm_a | neg_exp | column"``, operations of
    :data:`~secateur.export.gguf.operations.OPERATIONS` with an argument after a colon. ``gate>`` before a name takes
    the labelled part of the layout; several places are separated by ``;``; a place may end in `` if condition``.
    ``{E}`` in the anatomy's name: the experts' matrices are stacked.
    ``fields``: key below the architecture's name -> expression over axis sizes and config fields.
    ``per_layer``: key -> kind of sub-block -> expression; 0 for layers without such a sub-block.
    ``when``: condition under which this is the architecture. ``rules``: what llama.cpp takes for granted; a model for
    which one fails is refused. ``alike``: where one fails the file is written, and it is said what llama.cpp computes
    otherwise than transformers.
    """

    arch: str
    tensors: Mapping[str, str]
    fields: Mapping[str, str]
    when: str = "True"
    per_layer: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    alike: tuple[Rule, ...] = ()
