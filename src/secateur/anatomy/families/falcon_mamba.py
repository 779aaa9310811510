"""Falcon Mamba (arXiv 2410.05355): Mamba with weightless RMS norms on the step size, B and C."""

from __future__ import annotations

from secateur.anatomy.families import mamba
from secateur.anatomy.family import Family

FAMILY = Family(
    model_type="falcon_mamba",
    architecture="FalconMambaForCausalLM",
    roots=mamba.FAMILY.roots,
    fields=mamba.FAMILY.fields,
    stem=mamba.FAMILY.stem,
    head=mamba.FAMILY.head,
    every_layer=mamba.FAMILY.every_layer,
    slots=mamba.FAMILY.slots,
    weightless_norms=("[t]", "[n]", "[n]"),
    # with fewer states B and C each grow by sqrt(n'/n): the product is undone behind the mixer, where the skip path
    # through D, which never grew, must be grown to match; the step size is undone in the projection that reads it
    rescale={"mixer.out_proj.weight": "n**-1", "mixer.D": "n", "mixer.dt_proj.weight": "t**-0.5"},
    # residual norms and the norms of dt, B and C read different fields, so no one field can carry a cut
    eps_field=None,
    advice=mamba.FAMILY.advice,
)
