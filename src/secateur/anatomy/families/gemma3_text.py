"""Gemma 3, text (arXiv 2503.19786): norms before and after each sub-block, embeddings scaled by sqrt(hidden_size)."""

from __future__ import annotations

from secateur.anatomy.families._blocks import (
    ATTENTION_CACHE,
    HEAD,
    ROPE,
    WINDOW_CACHE,
    attention,
    attention_biases,
    glu,
    qk_norm,
    under,
    when,
)
from secateur.anatomy.family import Block, Family, Rule, Slot
from secateur.anatomy.selectors import Always, TypeList

_ATTENTION = under("self_attn.", attention() | qk_norm(norm="1+[e]") | when("attention_bias", attention_biases()))

FAMILY = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    fields="hidden_size=d vocab_size=v intermediate_size=f num_key_value_heads=k num_attention_heads=k*r "
    "head_dim=e head_dim=c",
    stem={"embed_tokens.weight": "v d", "norm.weight": "1+[d]"},
    head=HEAD,
    every_layer={
        "input_layernorm.weight": "1+[d]",
        "post_attention_layernorm.weight": "1+[d]",
        "pre_feedforward_layernorm.weight": "1+[d]",
        "post_feedforward_layernorm.weight": "1+[d]",
    },
    slots=(
        Slot(
            "mixer",
            TypeList("layer_types", {"full_attention": "attention", "sliding_attention": "sliding_attention"}),
            {
                "attention": Block(_ATTENTION, ATTENTION_CACHE),
                "sliding_attention": Block(_ATTENTION, WINDOW_CACHE),
            },
        ),
        Slot("ffn", Always("mlp"), {"mlp": Block(under("mlp.", glu()))}),
    ),
    rules=(Rule("d % (k*r) == 0", "the config class wants hidden_size to be a multiple of num_attention_heads"),),
    fixed=ROPE,
    # undo the embedding's factor sqrt(hidden_size); a tied head must not see that, so the last norm takes it back
    rescale={"embed_tokens.weight": "d**-0.5", "norm.weight": "d**0.5 if tie_word_embeddings else 1"},
    eps_exact="its norms after attention and MLP read sub-block outputs, which the scaling of the residual stream "
    "does not reach",
)
