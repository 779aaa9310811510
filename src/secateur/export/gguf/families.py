"""The families that llama.cpp knows, as declarations. The first of a family's entries whose ``when`` holds is taken.

Names of tensors and keys are llama.cpp's; what it takes for granted stands in ``rules``. Biases and parts that are not
named here have no place there, and a model that has them is refused before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping

from secateur.anatomy.family import Rule
from secateur.export.gguf.declaration import Gguf

_EMBED, _HEAD = {"embed_tokens.weight": "token_embd.weight"}, {"lm_head.weight": "output.weight"}
_STEM = _EMBED | {"norm.weight": "output_norm.weight"} | _HEAD
_STEM_FINAL = _EMBED | {"final_layernorm.weight": "output_norm.weight"} | _HEAD
_STEM_SSM = {"embeddings.weight": "token_embd.weight", "norm_f.weight": "output_norm.weight"} | _HEAD
_NORMS = {
    "input_layernorm.weight": "blk.{L}.attn_norm.weight",
    "post_attention_layernorm.weight": "blk.{L}.ffn_norm.weight",
}
_NORMS_PRE_FF = {
    "input_layernorm.weight": "blk.{L}.attn_norm.weight",
    "pre_ff_layernorm.weight": "blk.{L}.ffn_norm.weight",
}
_NORM_SSM = {"norm.weight": "blk.{L}.attn_norm.weight"}


def _attention(prefix: str, *, pairs: bool) -> dict[str, str]:
    """``pairs``: rotary embeddings turn neighbouring channels there, so queries and keys are reordered."""
    q, k = (" | rotary:k*r", " | rotary:k") if pairs else ("", "")
    names = {"q": ("attn_q", q), "k": ("attn_k", k), "v": ("attn_v", ""), "o": ("attn_output", "")}
    return {
        f"{prefix}.{short}_proj.{part}": f"blk.{{L}}.{name}.{part}{done}"
        for short, (name, done) in names.items()
        for part in ("weight", "bias")
    }


def _qk_norm(prefix: str = "self_attn") -> dict[str, str]:
    return {f"{prefix}.{n}_norm.weight": f"blk.{{L}}.attn_{n}_norm.weight" for n in "qk"}


def _ffn(prefix: str, *, bias: bool = False) -> dict[str, str]:
    parts = ("weight", "bias") if bias else ("weight",)
    return {f"{prefix}.{n}_proj.{p}": f"blk.{{L}}.ffn_{n}.{p}" for n in ("gate", "up", "down") for p in parts}


def _experts(
    prefix: str, router: str, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj"
) -> dict[str, str]:
    names = {gate: "gate", up: "up", down: "down"}
    found = {f"{prefix}.experts.{{E}}.{n}.weight": f"blk.{{L}}.ffn_{to}_exps.weight" for n, to in names.items()}
    return found | {f"{prefix}.{router}.weight": "blk.{L}.ffn_gate_inp.weight"}


def _mamba2(prefix: str) -> dict[str, str]:
    return {
        f"{prefix}.in_proj.weight": "blk.{L}.ssm_in.weight",
        f"{prefix}.conv1d.weight": "blk.{L}.ssm_conv1d.weight | squeeze",
        f"{prefix}.conv1d.bias": "blk.{L}.ssm_conv1d.bias",
        f"{prefix}.dt_bias": "blk.{L}.ssm_dt.bias",
        f"{prefix}.A_log": "blk.{L}.ssm_a | neg_exp | column",
        f"{prefix}.D": "blk.{L}.ssm_d | column",
        f"{prefix}.norm.weight": "blk.{L}.ssm_norm.weight | rows:g",
        f"{prefix}.out_proj.weight": "blk.{L}.ssm_out.weight",
    }


def _mamba1(prefix: str) -> dict[str, str]:
    return {
        f"{prefix}.in_proj.weight": "blk.{L}.ssm_in.weight",
        f"{prefix}.conv1d.weight": "blk.{L}.ssm_conv1d.weight | squeeze",
        f"{prefix}.conv1d.bias": "blk.{L}.ssm_conv1d.bias",
        f"{prefix}.x_proj.weight": "blk.{L}.ssm_x.weight",
        f"{prefix}.dt_proj.weight": "blk.{L}.ssm_dt.weight",
        f"{prefix}.dt_proj.bias": "blk.{L}.ssm_dt.bias",
        f"{prefix}.A_log": "blk.{L}.ssm_a | neg_exp",
        f"{prefix}.D": "blk.{L}.ssm_d",
        f"{prefix}.out_proj.weight": "blk.{L}.ssm_out.weight",
    }


_SIZE = {"embedding_length": "d", "vocab_size": "v"}
_CONTEXT = {"context_length": "max_position_embeddings"}
_LONG = {"context_length": "1048576"}  # recurrent models set no bound
_RMS = {"attention.layer_norm_rms_epsilon": "rms_norm_eps"}
_HEADS = {"attention.head_count": "k*r", "attention.key_length": "e", "attention.value_length": "c"}
_KV = {"attention.head_count_kv": "k"}
_ROPE = {"rope.dimension_count": "e", "rope.freq_base": "rope_parameters['rope_theta']"}
_MOE = {"expert_count": "E", "expert_used_count": "num_experts_per_tok"}
_NO_ATTENTION = {"feed_forward_length": "0", "attention.head_count": "0"}
_SSM1 = {"ssm.conv_kernel": "w", "ssm.inner_size": "c1", "ssm.state_size": "n", "ssm.time_step_rank": "t"}
_SSM2 = {
    "ssm.conv_kernel": "w",
    "ssm.inner_size": "g*h*p",
    "ssm.state_size": "n",
    "ssm.time_step_rank": "g*h",
    "ssm.group_count": "g",
}
_DT_MIN = Rule(
    "time_step_min is None or time_step_min == 0",
    "transformers raises every dt of a Mamba layer to time_step_min, llama.cpp takes it as it is",
)
_DEFAULT_ROPE = Rule("rope_parameters['rope_type'] == 'default'", "only plain rotary embeddings are written")
_TWICE_1 = Rule("c1 == 2*d", "it knows Mamba-1 with an inner size of twice the hidden size only")
_NO_SLIDING = Rule("not sliding_window", "a sliding window is not written")
_TOP_K = Rule("norm_topk_prob", "it normalises the chosen experts' weights")

_LLAMA = _SIZE | _CONTEXT | _RMS | _HEADS | _KV | _ROPE

_FALCON_IN = "scale:attention_in_multiplier"

GGUF: Mapping[str, tuple[Gguf, ...]] = {
    "llama": (
        Gguf(
            arch="llama",
            tensors=_STEM | _NORMS | _attention("self_attn", pairs=True) | _ffn("mlp", bias=True),
            fields=_LLAMA | {"feed_forward_length": "f"},
            rules=(_DEFAULT_ROPE,),
        ),
    ),
    "mistral": (
        Gguf(
            arch="llama",
            tensors=_STEM | _NORMS | _attention("self_attn", pairs=True) | _ffn("mlp"),
            fields=_LLAMA | {"feed_forward_length": "f"},
            rules=(_DEFAULT_ROPE, _NO_SLIDING),
        ),
    ),
    "mixtral": (
        Gguf(
            arch="llama",
            tensors=_STEM
            | _NORMS
            | _attention("self_attn", pairs=True)
            | _experts("block_sparse_moe", "gate", "w1", "w3", "w2"),
            fields=_LLAMA | {"feed_forward_length": "fe"} | _MOE,
            rules=(_DEFAULT_ROPE, _NO_SLIDING),
        ),
    ),
    "qwen3": (
        Gguf(
            arch="qwen3",
            tensors=_STEM | _NORMS | _attention("self_attn", pairs=False) | _qk_norm() | _ffn("mlp"),
            fields=_LLAMA | {"feed_forward_length": "f"},
            rules=(_DEFAULT_ROPE, Rule("not use_sliding_window", "a sliding window is not written")),
        ),
    ),
    "qwen3_moe": (
        Gguf(
            arch="qwen3moe",
            tensors=_STEM | _NORMS | _attention("self_attn", pairs=False) | _qk_norm() | _experts("mlp", "gate"),
            fields=_LLAMA | {"feed_forward_length": "f", "expert_feed_forward_length": "fe"} | _MOE,
            rules=(_DEFAULT_ROPE, _TOP_K, Rule("not use_sliding_window", "a sliding window is not written")),
        ),
    ),
    "olmoe": (
        Gguf(
            arch="olmoe",
            tensors=_STEM | _NORMS | _attention("self_attn", pairs=False) | _qk_norm() | _experts("mlp", "gate"),
            fields=_SIZE
            | _CONTEXT
            | _RMS
            | _KV
            | {
                "attention.head_count": "k*r",
                "rope.freq_base": "rope_parameters['rope_theta']",
                "rope.dimension_count": "e",
            }
            | {"feed_forward_length": "fe"}
            | _MOE,
            rules=(
                _DEFAULT_ROPE,
                Rule("not norm_topk_prob", "it does not normalise the chosen experts' weights"),
                Rule("not clip_qkv", "clipping is not written"),
            ),
        ),
    ),
    "mamba": (
        Gguf(
            arch="mamba",
            tensors=_STEM_SSM | _NORM_SSM | _mamba1("mixer"),
            fields=_SIZE | _LONG | _NO_ATTENTION | _SSM1 | {"attention.layer_norm_rms_epsilon": "layer_norm_epsilon"},
            rules=(_TWICE_1,),
        ),
    ),
    "falcon_mamba": (
        Gguf(
            arch="mamba",
            tensors=_STEM_SSM | _NORM_SSM | _mamba1("mixer"),
            fields=_SIZE
            | _LONG
            | _NO_ATTENTION
            | _SSM1
            | {"attention.layer_norm_rms_epsilon": "layer_norm_epsilon", "ssm.dt_b_c_rms": "True"},
            rules=(_TWICE_1,),
        ),
    ),
    "mamba2": (
        Gguf(
            arch="mamba2",
            tensors=_STEM_SSM | _NORM_SSM | _mamba2("mixer"),
            fields=_SIZE | _LONG | _NO_ATTENTION | _SSM2 | {"attention.layer_norm_rms_epsilon": "layer_norm_epsilon"},
        ),
    ),
    "nemotron_h": (
        Gguf(
            arch="nemotron_h",
            when="E is None or 'moe' not in layers_block_type",
            tensors=_STEM_SSM
            | _NORM_SSM
            | _mamba2("mixer")
            | _attention("mixer", pairs=False)
            | {f"mixer.{n}_proj.{p}": f"blk.{{L}}.ffn_{n}.{p}" for n in ("up", "down") for p in ("weight", "bias")},
            fields=_SIZE
            | _CONTEXT
            | _SSM2
            | _HEADS
            | {
                "attention.layer_norm_rms_epsilon": "layer_norm_epsilon",
                "attention.layer_norm_epsilon": "layer_norm_epsilon",  # asked for, and used by heads we do not write
                "rope.scaling.finetuned": "False",
            },
            per_layer={"attention.head_count_kv": {"attention": "k"}, "feed_forward_length": {"mlp": "f"}},
            alike=(_DT_MIN,),
        ),
    ),
    "granitemoehybrid": (
        Gguf(
            arch="granitehybrid",
            tensors=_STEM
            | _NORMS
            | _mamba2("mamba")
            | _attention("self_attn", pairs=True)
            | {
                "block_sparse_moe.router.layer.weight": "blk.{L}.ffn_gate_inp.weight",
                "block_sparse_moe.input_linear.weight": "gate>blk.{L}.ffn_gate_exps.weight; "
                "up>blk.{L}.ffn_up_exps.weight",
                "block_sparse_moe.output_linear.weight": "blk.{L}.ffn_down_exps.weight",
                "shared_mlp.input_linear.weight": "gate>blk.{L}.ffn_gate_shexp.weight if num_local_experts > 0; "
                "up>blk.{L}.ffn_up_shexp.weight if num_local_experts > 0; "
                "gate>blk.{L}.ffn_gate.weight if num_local_experts == 0; "
                "up>blk.{L}.ffn_up.weight if num_local_experts == 0",
                "shared_mlp.output_linear.weight": "blk.{L}.ffn_down_shexp.weight if num_local_experts > 0; "
                "blk.{L}.ffn_down.weight if num_local_experts == 0",
            },
            fields=_SIZE
            | _CONTEXT
            | _RMS
            | _SSM2
            | _HEADS
            | {
                "feed_forward_length": "fe if num_local_experts > 0 else fs",
                "expert_shared_feed_forward_length": "fs if num_local_experts > 0 else None",
                "expert_count": "E if num_local_experts > 0 else None",
                "expert_used_count": "num_experts_per_tok if num_local_experts > 0 else None",
                "attention.scale": "attention_multiplier",
                "embedding_scale": "embedding_multiplier",
                "residual_scale": "residual_multiplier",
                "logit_scale": "logits_scaling",
                "rope.scaling.finetuned": "position_embedding_type == 'rope'",
                "rope.freq_base": "rope_parameters['rope_theta'] if position_embedding_type == 'rope' else None",
            },
            per_layer={"attention.head_count_kv": {"attention": "k"}},
            rules=(
                Rule("g*h*p == 2*d", "it takes the SSM inner size to be twice the hidden size"),
                Rule("'linear_attention' in layer_types", "it wants at least one Mamba layer in this architecture"),
            ),
        ),
    ),
    "falcon_h1": (
        Gguf(
            arch="falcon-h1",
            tensors={
                "embed_tokens.weight": "token_embd.weight | scale:embedding_multiplier; "
                "output.weight | scale:lm_head_multiplier if tie_word_embeddings",
                "final_layernorm.weight": "output_norm.weight",
                "lm_head.weight": "output.weight | scale:lm_head_multiplier",
                "input_layernorm.weight": "blk.{L}.attn_norm.weight",
                "pre_ff_layernorm.weight": "blk.{L}.ffn_norm",
                "self_attn.q_proj.weight": f"blk.{{L}}.attn_q.weight | {_FALCON_IN}",
                "self_attn.k_proj.weight": f"blk.{{L}}.attn_k.weight | {_FALCON_IN} | scale:key_multiplier",
                "self_attn.v_proj.weight": f"blk.{{L}}.attn_v.weight | {_FALCON_IN}",
                "self_attn.o_proj.weight": "blk.{L}.attn_output.weight | scale:attention_out_multiplier",
                "feed_forward.gate_proj.weight": "blk.{L}.ffn_gate.weight | scale:mlp_multipliers[0]",
                "feed_forward.up_proj.weight": "blk.{L}.ffn_up.weight",
                "feed_forward.down_proj.weight": "blk.{L}.ffn_down.weight | scale:mlp_multipliers[1]",
            }
            | _mamba2("mamba")
            | {
                "mamba.in_proj.weight": "blk.{L}.ssm_in.weight | scale:ssm_in_multiplier | parts:ssm_multipliers",
                "mamba.out_proj.weight": "blk.{L}.ssm_out.weight | scale:ssm_out_multiplier",
            },
            fields=_SIZE | _CONTEXT | _RMS | _SSM2 | _HEADS | _KV | _ROPE | {"feed_forward_length": "f"},
            rules=(_DEFAULT_ROPE,),
        ),
    ),
    "jamba": (
        Gguf(
            arch="jamba",
            tensors=_STEM_FINAL
            | _NORMS_PRE_FF
            | _mamba1("mamba")
            | {f"mamba.{n}_layernorm.weight": f"blk.{{L}}.ssm_{n}_norm.weight" for n in ("dt", "b", "c")}
            | _attention("self_attn", pairs=False)
            | _ffn("feed_forward")
            | _experts("feed_forward", "router"),
            fields=_SIZE
            | _CONTEXT
            | _RMS
            | _SSM1
            | {"attention.head_count": "k*r", "feed_forward_length": "f", "expert_count": "E"}
            | {"expert_used_count": "num_experts_per_tok"},
            per_layer={"attention.head_count_kv": {"attention": "k"}},
            rules=(_TWICE_1, Rule("k*r*e == d", "it takes heads times head_dim to be the hidden size")),
        ),
    ),
}
