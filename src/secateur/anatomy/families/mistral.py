"""Mistral (arXiv 2310.06825): Llama's layers with an optional attention window."""

from __future__ import annotations

from secateur.anatomy.families._blocks import HEAD, PRE_NORMS, ROPE, WINDOW_CACHE, attention, glu, under
from secateur.anatomy.family import Block, Family, Slot
from secateur.anatomy.selectors import Always

FAMILY = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    fields="hidden_size=d vocab_size=v intermediate_size=f num_key_value_heads=k num_attention_heads=k*r "
    "head_dim=e head_dim=c",
    stem={"embed_tokens.weight": "v d", "norm.weight": "[d]"},
    head=HEAD,
    every_layer=PRE_NORMS,
    slots=(
        Slot("mixer", Always("attention"), {"attention": Block(under("self_attn.", attention()), WINDOW_CACHE)}),
        Slot("ffn", Always("mlp"), {"mlp": Block(under("mlp.", glu()))}),
    ),
    fixed=ROPE,
    ignored={r".*\.rotary_emb\.inv_freq": "recomputed from the config"},
)
