"""RecurrentGemma (arXiv 2404.07839): RG-LRU with block-diagonal gates, windowed attention in every third layer."""

from __future__ import annotations

from secateur.anatomy.families._blocks import HEAD, HEAD_DIM, ROPE, attention, glu, glu_biases, under, when
from secateur.anatomy.family import Advice, Block, Cache, Family, Slot
from secateur.anatomy.selectors import Always, Cyclic

_LRU = {
    "linear_y.weight": "(b u) d",
    "linear_y.bias": "(b u)",
    "linear_x.weight": "(b u) d",
    "linear_x.bias": "(b u)",
    "linear_out.weight": "d (b u)",
    "linear_out.bias": "d",
    "conv_1d.weight": "(b u) 1 w",
    "conv_1d.bias": "(b u)",
    "rg_lru.recurrent_param": "(b u)",
    "rg_lru.input_gate_weight": "b u u",
    "rg_lru.input_gate_bias": "b u",
    "rg_lru.recurrent_gate_weight": "b u u",
    "rg_lru.recurrent_gate_bias": "b u",
}
_ATTENTION = (
    attention()
    | {"o_proj.bias": "d"}
    | when("attention_bias", {"q_proj.bias": "(k r e)", "k_proj.bias": "(k e)", "v_proj.bias": "(k c)"})
)

FAMILY = Family(
    model_type="recurrent_gemma",
    architecture="RecurrentGemmaForCausalLM",
    # one field counts attention heads and blocks of the RG-LRU; intermediate_size counts gate and up channels
    fields="hidden_size=d vocab_size=v num_attention_heads=b lru_width=b*u conv1d_width=w intermediate_size=2*f "
    "num_key_value_heads=k num_attention_heads=k*r head_dim=e head_dim=c",
    fallback=HEAD_DIM,
    stem={"embed_tokens.weight": "v d", "final_norm.weight": "1+[d]"},
    head=HEAD,
    every_layer={"temporal_pre_norm.weight": "1+[d]", "channel_pre_norm.weight": "1+[d]"},
    slots=(
        Slot(
            "mixer",
            Cyclic("block_types", {"recurrent": "lru", "attention": "attention"}),
            {
                "lru": Block(under("temporal_block.", _LRU), Cache(state="b*u", conv="b*u*(w - 1)")),
                "attention": Block(
                    under("temporal_block.", _ATTENTION),
                    Cache(per_token="k*e + k*c", window="attention_window_size"),
                ),
            },
        ),
        Slot("ffn", Always("mlp"), {"mlp": Block(under("mlp_block.", glu() | glu_biases()))}),
    ),
    fixed=ROPE,
    needs=("attention",),
    # embeddings are multiplied by sqrt(hidden_size) rounded to bfloat16; a tied head must not see the correction
    rescale={
        "embed_tokens.weight": "1 / bf16(d**0.5)",
        "final_norm.weight": "bf16(d**0.5) if tie_word_embeddings else 1",
    },
    advice=(Advice("transformers", "b*u == d", "it sizes the convolution state of a one-token prompt by hidden_size"),),
)
