"""The public names of axes: one vocabulary for the API, the command line and secateur.json.

Layouts use short symbols; people use names. A name may stand for a product: ``ssm_heads`` counts all heads, while the
layouts index a head inside its group (``g h``), which is what makes every cut group-aware.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublicAxis:
    """``symbols`` multiply to the public size; the first listed last varies: resizing ``ssm_heads`` resizes ``h``."""

    name: str
    symbols: tuple[str, ...]
    unit: str
    multiple: int = 1

    @property
    def symbol(self) -> str:
        """The layout axis that a change of this public axis resizes."""
        return self.symbols[-1]


def _axis(name: str, symbols: str, unit: str, multiple: int = 1) -> PublicAxis:
    return PublicAxis(name, tuple(symbols.split()), unit, multiple)


#: Every public axis. ``multiple``: sizes that matrix kernels like, used by the planner when the parent is large enough.
PUBLIC: dict[str, PublicAxis] = {
    a.name: a
    for a in (
        _axis("hidden", "d", "channels of the residual stream", 256),
        _axis("ffn", "f", "channels of the feed-forward layer", 512),
        _axis("kv_heads", "k", "key/value heads (heads, where every head has its own keys)"),
        _axis("q_per_kv", "r", "query heads per key/value head"),
        _axis("head_dim", "e", "channels of an attention head", 16),
        _axis("ssm_groups", "g", "groups of SSM heads that share B and C"),
        _axis("ssm_heads", "g h", "SSM heads, all groups together"),
        _axis("ssm_head_dim", "p", "channels of an SSM head", 8),
        _axis("ssm_state", "n", "state entries per SSM channel", 16),
        _axis("ssm_channels", "c1", "inner channels of a Mamba-1 mixer", 128),
        _axis("dt_rank", "t", "rank of the step-size projection of Mamba-1", 8),
        _axis("delta_key_heads", "gk", "key heads of the gated delta rule"),
        _axis("delta_v_per_key", "gr", "value heads per key head of the gated delta rule"),
        _axis("delta_key_dim", "ek", "key channels of a delta-rule head", 16),
        _axis("delta_value_dim", "ev", "value channels of a delta-rule head", 16),
        _axis("experts", "E", "routed experts"),
        _axis("expert_ffn", "fe", "channels of a routed expert", 64),
        _axis("shared_ffn", "fs", "channels of the shared expert", 64),
        _axis("conv_channels", "cc", "channels of a gated short convolution", 256),
        _axis("lru_blocks", "b", "block-diagonal blocks of an RG-LRU"),
        _axis("lru_block_dim", "u", "channels of an RG-LRU block", 16),
        _axis("mla_heads", "a", "heads of multi-head latent attention"),
        _axis("mla_kv_rank", "kr", "rank of the latent keys and values", 64),
        _axis("mla_q_rank", "qr", "rank of the latent queries", 64),
        _axis("mla_nope_dim", "en", "channels of a head without position", 16),
        _axis("mla_rope_dim", "er", "channels of a head that carry position", 16),
        _axis("mla_value_dim", "cv", "value channels of a latent-attention head", 16),
        _axis("adapter_rank", "ra", "rank of the per-layer adapters of a shared block", 16),
        _axis("embed_dim", "dw", "channels of the word embedding where it differs from the residual stream", 64),
        _axis("moe_latent", "dl", "channels of the latent space routed experts read and write", 64),
        _axis("vocab", "v", "tokens", 64),
        _axis("layers", "", "decoder layers"),
    )
}
