"""What a family declares: a frozen value, no code.

A family says which tensors its layers hold (layouts), how config fields relate to axis sizes, what the config cannot
express, and how layers are listed. Everything else - cutting, masking, counting, planning, refusing - is generic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from secateur.anatomy.selectors import Selector


@dataclass(frozen=True, slots=True)
class Cache:
    """Entries a block keeps while decoding, as expressions over axis sizes.

    ``per_token``: keys and values; ``window``: config field that caps the tokens kept; ``state``: recurrent state per
    sequence (kept in float32 by every engine); ``conv``: convolution state per sequence.
    """

    per_token: str = "0"
    window: str | None = None
    state: str = "0"
    conv: str = "0"


@dataclass(frozen=True, slots=True)
class Block:
    """Tensors of one sub-block: name (relative to the layer) -> layout. ``{E}`` in a name runs over an axis.

    ``"f dl if moe_latent_size else f d"`` is a tensor whose layout depends on the config.
    """

    tensors: Mapping[str, str]
    cache: Cache = Cache()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    """One place in every layer, the kinds of block that may stand there and how the config selects one."""

    name: str
    select: Selector
    kinds: Mapping[str, Block]


@dataclass(frozen=True, slots=True)
class Rule:
    """A relation that must hold between axis sizes (``expr``), with the reason to show when it does not."""

    expr: str
    why: str


@dataclass(frozen=True, slots=True)
class Fixed:
    """An axis that the config cannot resize; ``when``: config condition under which that is so."""

    axis: str
    why: str
    when: str = "True"


@dataclass(frozen=True, slots=True)
class Advice:
    """What an inference engine wants beyond transformers: a warning when ``expr`` does not hold."""

    engine: str
    expr: str
    why: str


ENGINES = (
    Advice(
        "vLLM on a CPU",
        "e in (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)",
        "its attention kernels know heads of 32, 64, 80, 96, 112, 128, 160, 192, 224, 256 or 512 channels",
    ),
)
"""Of all families, where the parent holds to it (vLLM 0.32)."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Weight sets used by several layers in turn (Zamba2).

    ``prefix``: tensors under it exist once per block, stored at the first layer that uses the block. ``blocks``: config
    field with the number of blocks. ``kind``: the slot kind whose layers use them, in order 0, 1, .. blocks-1, 0, ..
    ``axes``: axes whose kept units are common to all users of a block. ``{S}`` in a name counts users (adapters).
    """

    prefix: str
    blocks: str
    kind: str
    axes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture. Names of tensors are those on disk.

    ``fields``: ``"config_field=axis*axis .."``; each entry brings in at most one new axis. ``fallback``: size of an
    axis whose field is absent. ``derived``: config fields computed from sizes, which must come out integral.
    A derived value may end in `` if condition``. ``explicit``: axis -> config fields to write out when that axis is
    resized, because their present value would make the config class compute another size.
    ``stale``: keys of the raw config that repeat a size: updated (expression, with `` if `` condition) when that size
    changes, or removed (None). ``nested``: config field -> dotted place where the raw config may hold it instead.
    ``rescale``: tensor name pattern -> f(sizes, config); the tensor is multiplied by f(new) / f(old).
    ``spellings``: tensor name -> the name it has in files of another writer. ``ignored``: regular expressions of
    tensors that loaders skip, with the reason they are left behind. ``functional``: axes a zero mask does not silence.
    ``may_be_zero``: axes whose units may all go.
    ``needs``: kinds of which at least one layer must stay, or cached decoding fails.
    ``weightless_norms``: layouts of norms without a weight.
    ``eps_field``: the config field every RMS norm reads; ``eps_exact``: why the eps-exact residual variant does not
    apply ('' = it does).
    """

    model_type: str
    architecture: str
    fields: str
    stem: Mapping[str, str]
    head: Mapping[str, str]
    slots: tuple[Slot, ...]
    every_layer: Mapping[str, str] = field(default_factory=dict)
    roots: tuple[str, ...] = ("model.",)
    layer: str = "layers.{L}."
    layers_field: str = "num_hidden_layers"
    fallback: Mapping[str, str] = field(default_factory=dict)
    derived: Mapping[str, str] = field(default_factory=dict)
    explicit: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    stale: Mapping[str, str | None] = field(default_factory=dict)
    nested: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    fixed: tuple[Fixed, ...] = ()
    rescale: Mapping[str, str] = field(default_factory=dict)
    spellings: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    global_axes: tuple[str, ...] = ("d", "v")
    functional: tuple[str, ...] = ("E",)
    may_be_zero: tuple[str, ...] = ()
    shared: Shared | None = None
    weightless_norms: tuple[str, ...] = ()
    eps_field: str | None = "rms_norm_eps"
    eps_exact: str = ""
    needs: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()


def under(prefix: str, tensors: Mapping[str, str]) -> dict[str, str]:
    """The same tensors below ``prefix``."""
    return {prefix + name: layout for name, layout in tensors.items()}


def when(condition: str, tensors: Mapping[str, str]) -> dict[str, str]:
    """The same tensors, present only when the config satisfies ``condition``."""
    return {name: f"{layout} if {condition}" for name, layout in tensors.items()}
