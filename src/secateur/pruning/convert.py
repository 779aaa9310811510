"""convert: the same model as a member of another standard family that can say more shapes, at equal logits."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy
from secateur.checkpoint import DTYPES, TensorSpec, publish, require_space, write_json, write_tensors
from secateur.checkpoint.passengers import copy_passengers, list_passengers
from secateur.errors import UsageError
from secateur.model import Model, open_model
from secateur.pruning.conversions import CONVERSIONS, Offer, convert_config, tensor_sources
from secateur.pruning.provenance import FILE, versions


def offer_to(model: Model, target: str) -> Offer:
    """The conversion of ``model`` to family ``target``.

    Raises UsageError when there is none, InexpressibleError when this model's config rules it out.
    """
    source = model.anatomy.family.model_type
    for conversion in CONVERSIONS:
        if (conversion.source, conversion.target) == (source, target):
            anatomy = Anatomy(convert_config(model.anatomy, conversion))
            return Offer(conversion, anatomy, anatomy.count() - model.anatomy.count())
    possible = sorted(c.target for c in CONVERSIONS if c.source == source)
    raise UsageError(
        f"a {source} model cannot be said as {target!r}",
        hint=f"possible: {', '.join(possible)}" if possible else f"no other standard class says a {source} model",
    )


def convert(model: Model, target: str, out: Path, *, shard_bytes: int = 5 * 10**9) -> Model:
    """Write ``model`` to ``out`` as a member of family ``target``; returns it opened. Streams; whole or not at all."""
    offer = offer_to(model, target)
    sources = tensor_sources(model.anatomy, offer)
    specs = []
    for name, source in sources.items():
        dtype = model.dtype(source) if isinstance(source, str) else model.default_dtype
        specs.append(TensorSpec(name, dtype, lo.shape(offer.anatomy.tensors[name].layout, offer.anatomy.sizes)))

    def produce(spec: TensorSpec) -> torch.Tensor:
        source = sources[spec.name]
        if isinstance(source, str):
            return model.read(source)
        return torch.full(spec.shape, source, dtype=DTYPES[spec.dtype][0])

    require_space(out, sum(math.prod(s.shape) * DTYPES[s.dtype][1] for s in specs))
    with publish(out) as staging:
        write_tensors(staging, specs, produce, shard_bytes=shard_bytes)
        write_json(staging / "config.json", offer.anatomy.raw)
        passengers = list_passengers(model.folder)
        copy_passengers(model.folder, staging, passengers)
        entry = {
            "secateur": 1,
            "step": "convert",
            "versions": versions(),
            "parent": {"source": model.source, "config_sha256": model.config_sha256},
            "target": target,
            "limits": list(offer.conversion.limits),
            "tensors": {n: s if isinstance(s, str) else {"fill": s} for n, s in sources.items()},
        }
        write_json(staging / FILE, entry)
    return open_model(out)
