"""Blocks that several families share. A family takes them as they are or overrides single entries."""

from __future__ import annotations

from secateur.anatomy.family import Advice, Cache, Fixed, Rule, under, when

__all__ = [
    "ATTENTION_CACHE",
    "DELTA",
    "DELTA_ADVICE",
    "DELTA_CACHE",
    "DELTA_CONV",
    "DELTA_FIELDS",
    "DELTA_SCALE",
    "HEAD",
    "HEAD_DIM",
    "KERNEL_FE",
    "MAMBA1",
    "MAMBA1_CACHE",
    "MAMBA2",
    "MAMBA2_ADVICE",
    "MAMBA2_CACHE",
    "PRE_NORMS",
    "ROPE",
    "TOP_K",
    "WINDOW_CACHE",
    "attention",
    "experts",
    "gated_attention",
    "glu",
    "qk_norm",
    "under",
    "when",
]

_XBC = "(x:g h p + B:g n + C:g n)"
_ZXBCDT = "(z:g h p + x:g h p + B:g n + C:g n + dt:g h)"

#: The Mamba-2 mixer (arXiv 2405.21060): heads are indexed inside the group whose B and C they share.
MAMBA2 = {
    "in_proj.weight": f"{_ZXBCDT} d",
    "conv1d.weight": f"{_XBC} 1 w",
    "dt_bias": "(g h)",
    "A_log": "(g h)",
    "D": "(g h)",
    "norm.weight": "(g [h p])",
    "out_proj.weight": "d (g h p)",
}
MAMBA2_BIASES = {"in_proj.bias": _ZXBCDT, "out_proj.bias": "d"}
MAMBA2_CONV_BIAS = {"conv1d.bias": _XBC}
MAMBA2_CACHE = Cache(state="g*h*p*n", conv="(g*h*p + 2*g*n)*w")

#: The Mamba-1 mixer (arXiv 2312.00752): channels have no groups.
MAMBA1 = {
    "in_proj.weight": "(x:c1 + z:c1) d",
    "conv1d.weight": "c1 1 w",
    "x_proj.weight": "(dt:t + B:n + C:n) c1",
    "dt_proj.weight": "c1 t",
    "dt_proj.bias": "c1",
    "A_log": "c1 n",
    "D": "c1",
    "out_proj.weight": "d c1",
}
MAMBA1_BIASES = {"in_proj.bias": "(x:c1 + z:c1)", "out_proj.bias": "d"}
MAMBA1_CONV_BIAS = {"conv1d.bias": "c1"}
MAMBA1_CACHE = Cache(state="c1*n", conv="c1*w")

ATTENTION_CACHE = Cache(per_token="k*e + k*c")
WINDOW_CACHE = Cache(per_token="k*e + k*c", window="sliding_window")

PRE_NORMS = {"input_layernorm.weight": "[d]", "post_attention_layernorm.weight": "[d]"}

#: ``head_dim`` may be left out of the config; the attention code then divides.
HEAD_DIM = {"e": "d // (k*r)", "c": "e"}

TOP_K = Rule("E >= num_experts_per_tok", "the router picks num_experts_per_tok different experts")
KERNEL_FE = Advice(
    "CUDA kernels", "fe % 8 == 0 and d % 8 == 0", "grouped matrix products want rows of a multiple of 16 bytes"
)

#: The gated delta rule (arXiv 2412.06464): value heads are indexed inside the key head they share.
DELTA_CONV = "(q:gk ek + k:gk ek + v:gk gr ev)"
DELTA = {
    "dt_bias": "(gk gr)",
    "A_log": "(gk gr)",
    "conv1d.weight": f"{DELTA_CONV} 1 w",
    "norm.weight": "[ev]",
    "out_proj.weight": "d (gk gr ev)",
}
DELTA_CACHE = Cache(state="gk*gr*ek*ev", conv="(2*gk*ek + gk*gr*ev)*w")
DELTA_FIELDS = (
    "linear_num_key_heads=gk linear_num_value_heads=gk*gr linear_key_head_dim=ek linear_value_head_dim=ev "
    "linear_conv_kernel_dim=w "
)
#: Queries are divided by sqrt(key width) after their own normalisation: the norm behind the scan sees that factor
#: beside its eps, just as if a norm over the key channels had shrunk.
DELTA_SCALE = ("[ek]",)
DELTA_ADVICE = (
    Advice("llama.cpp", "ek == ev", "it has one state size for keys and values of the delta rule"),
    Advice("vLLM", "ek <= 256", "its delta-rule kernels hold a key of at most 256 channels"),
)

HEAD = {"lm_head.weight": "v d if not tie_word_embeddings"}


def attention(q: str = "q_proj", k: str = "k_proj", v: str = "v_proj", o: str = "o_proj") -> dict[str, str]:
    """Grouped-query attention weights (arXiv 2305.13245): query heads are indexed inside their key/value head."""
    return {
        f"{q}.weight": "(k r e) d",
        f"{k}.weight": "(k e) d",
        f"{v}.weight": "(k c) d",
        f"{o}.weight": "d (k r c)",
    }


def attention_biases(q: str = "q_proj", k: str = "k_proj", v: str = "v_proj", o: str = "o_proj") -> dict[str, str]:
    """Biases of :func:`attention`."""
    return {f"{q}.bias": "(k r e)", f"{k}.bias": "(k e)", f"{v}.bias": "(k c)", f"{o}.bias": "d"}


def qk_norm(q: str = "q_norm", k: str = "k_norm", norm: str = "[e]") -> dict[str, str]:
    """Per-head RMS norms of queries and keys."""
    return {f"{q}.weight": norm, f"{k}.weight": norm}


def gated_attention() -> tuple[dict[str, str], dict[str, str]]:
    """Attention whose query projection also carries an output gate per channel (Qwen3-Next): weights, biases."""
    q = "(k r (q:e + gate:c))"
    weights = attention() | {"q_proj.weight": f"{q} d"} | qk_norm(norm="1+[e]")
    return weights, attention_biases() | {"q_proj.bias": q}


def glu(gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj", f: str = "f") -> dict[str, str]:
    """Gated feed-forward weights; gate and up share one index over the inner axis ``f``."""
    return {f"{gate}.weight": f"{f} d", f"{up}.weight": f"{f} d", f"{down}.weight": f"d {f}"}


def glu_biases(gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj", f: str = "f") -> dict[str, str]:
    """Biases of :func:`glu`."""
    return {f"{gate}.bias": f, f"{up}.bias": f, f"{down}.bias": "d"}


def experts(prefix: str = "experts.{E}.", names: str = "gate_proj up_proj down_proj", f: str = "fe") -> dict[str, str]:
    """Routed experts as files hold them: one set of matrices per expert."""
    gate, up, down = names.split()
    return under(prefix, glu(gate, up, down, f))


ROPE = (
    Fixed("e", "rotary embedding: the frequencies follow from head_dim"),
    Fixed("c", "the config has one field for the channels of keys and values"),
)

#: What the CUDA kernels of Mamba-2 mixers want beyond transformers (causal-conv1d's fused path).
MAMBA2_ADVICE = (
    Advice("CUDA kernels", "(g*h*p + 2*g*n) % 8 == 0", "causal-conv1d wants convolution channels divisible by 8"),
    Advice(
        "llama.cpp (CUDA)",
        "p % 16 == 0 and n in [96, 128, 256]",
        "its scan kernel knows head sizes in steps of 16 and states of 96, 128 or 256; others run on the CPU",
    ),
)
