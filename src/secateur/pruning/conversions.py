"""Other standard classes that can say a shape the model's own class cannot.

A conversion is data: how the target's config follows from the source's, and where the target's tensors come from. It
is listed only if logits stay equal in plain transformers, with and without cache; the contract tests hold every entry
to that. The converted model is then cut like any other member of the target family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from secateur.anatomy import expr
from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.families import family_of
from secateur.anatomy.family import Rule
from secateur.errors import InexpressibleError, UsageError
from secateur.pruning.shape import resolve


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """One way from family ``source`` to family ``target`` at equal logits; tensors keep their names on disk.

    ``fields``: target config field -> expression over the source's effective config. ``carry``: keys taken from the raw
    config as they are, where it has them. ``requires``: what must hold of the source's config. ``copies``: tensor the
    source may lack -> the source tensor it repeats. ``fills``: tensor inside a layer that only the target has -> the
    value of all its entries. ``limits``: what a user must know before accepting.
    """

    source: str
    target: str
    fields: Mapping[str, str]
    carry: tuple[str, ...] = ()
    requires: tuple[Rule, ...] = ()
    copies: Mapping[str, str] = field(default_factory=dict)
    fills: Mapping[str, float] = field(default_factory=dict)
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """The model as a member of another family. ``extra``: parameters it gains before any cut."""

    conversion: Conversion
    anatomy: Anatomy
    extra: int


def _same(names: str) -> dict[str, str]:
    return {name: name for name in names.split()}


_EVERYONE = ("bos_token_id", "eos_token_id", "pad_token_id", "initializer_range", "use_cache", "dtype", "torch_dtype")

CONVERSIONS: tuple[Conversion, ...] = (
    # expand must be whole in mamba2; nemotron_h has no such field. Its cache counts tokens in an attention layer only,
    # so decoding fails without one: a last layer of one small head that writes zeros mends that.
    Conversion(
        source="mamba2",
        target="nemotron_h",
        fields=_same(
            "vocab_size hidden_size n_groups conv_kernel chunk_size use_bias use_conv_bias layer_norm_epsilon "
            "residual_in_fp32 rescale_prenorm_residual"
        )
        | {
            "mamba_num_heads": "num_heads",
            "mamba_head_dim": "head_dim",
            "ssm_state_size": "state_size",
            "mamba_hidden_act": "hidden_act",
            "time_step_min": "1e-30",  # a lower bound on steps here; not 0, because initialisation takes its logarithm
            "hybrid_override_pattern": "'M' * num_hidden_layers + '*'",
            "num_hidden_layers": "num_hidden_layers + 1",
            "num_attention_heads": "1",
            "num_key_value_heads": "1",
            "head_dim": "8",
            "intermediate_size": "hidden_size",
            "max_position_embeddings": "1048576",
            "tie_word_embeddings": "False",
        },
        carry=_EVERYONE,
        requires=(
            Rule(
                "0.0 in time_step_limit and 1e999 in time_step_limit", "nemotron_h has no upper limit of the step size"
            ),
        ),
        copies={"lm_head.weight": "backbone.embeddings.weight"},
        fills={
            "norm.weight": 1.0,
            "mixer.q_proj.weight": 0.0,
            "mixer.k_proj.weight": 0.0,
            "mixer.v_proj.weight": 0.0,
            "mixer.o_proj.weight": 0.0,
        },
        limits=(
            "one attention layer of a single head is added, with zero weights: without an attention layer cached "
            "decoding of nemotron_h fails in transformers",
            "nemotron_h keeps the residual stream in the weights' dtype where mamba2 keeps float32, so low-precision "
            "logits round differently",
            "nemotron_h ties no head, so a head tied to the embedding is written out as a tensor of its own",
        ),
    ),
    # the config class of llama wants hidden % heads == 0; that of mistral does not
    Conversion(
        source="llama",
        target="mistral",
        fields=_same(
            "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
            "head_dim hidden_act max_position_embeddings rms_norm_eps tie_word_embeddings attention_dropout"
        )
        | {"sliding_window": "None"},
        carry=(*_EVERYONE, "rope_theta", "rope_scaling", "rope_parameters"),
        requires=(Rule("not attention_bias and not mlp_bias", "mistral has no biases"),),
    ),
)


def convert_config(anatomy: Anatomy, conversion: Conversion) -> dict[str, Any]:
    """config.json of the same model as a member of ``conversion.target``.

    Raises InexpressibleError when the source's config asks for something the target does not have.
    """
    for rule in conversion.requires:
        if not expr.evaluate(rule.expr, anatomy.config):
            raise InexpressibleError(f"{conversion.source} cannot be said as {conversion.target} here: {rule.why}")
    family = family_of(conversion.target)
    out: dict[str, Any] = {"architectures": [family.architecture], "model_type": conversion.target}
    out |= {name: expr.evaluate(text, anatomy.config) for name, text in conversion.fields.items()}
    return out | {key: anatomy.raw[key] for key in conversion.carry if key in anatomy.raw}


def tensor_sources(anatomy: Anatomy, offer: Offer) -> dict[str, str | float]:
    """Target tensor -> the source tensor it is, or the value all its entries have."""
    out: dict[str, str | float] = {}
    for name, decl in offer.anatomy.tensors.items():
        if name in anatomy.tensors:
            out[name] = name
        elif name in offer.conversion.copies:
            out[name] = offer.conversion.copies[name]
        else:
            out[name] = offer.conversion.fills[decl.pattern]
    return out


def offers(anatomy: Anatomy, wanted: Mapping[str, int]) -> list[Offer]:
    """Families that can say ``wanted`` (public sizes) where the model's own cannot; empty when its own can."""
    if _can_say(anatomy, wanted):
        return []
    found = []
    for conversion in CONVERSIONS:
        if conversion.source != anatomy.family.model_type:
            continue
        try:
            target = Anatomy(convert_config(anatomy, conversion))
        except InexpressibleError:
            continue
        if _can_say(target, wanted):
            found.append(Offer(conversion, target, target.count() - anatomy.count()))
    return found


def _can_say(anatomy: Anatomy, wanted: Mapping[str, int]) -> bool:
    try:
        resolve(anatomy, wanted)
    except (InexpressibleError, UsageError):
        return False
    return True
