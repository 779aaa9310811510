"""Tiny checkpoints of several families, built in code, and a pool of them that is built once per test process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCAB = 48
_ATTENTION = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=64)

#: Name -> config fields. Sizes differ from each other, so that no axis can be taken for another.
CONFIGS: dict[str, dict[str, Any]] = {
    "nemotron_h": dict(
        hidden_size=24, intermediate_size=40, ssm_state_size=12, mamba_num_heads=8, mamba_head_dim=6, n_groups=2,
        chunk_size=8, tie_word_embeddings=False, **_ATTENTION,
        layers_block_type=["linear_attention", "mlp", "full_attention", "linear_attention", "mlp"],
    ),
    "mixtral": dict(
        hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_local_experts=4, num_experts_per_tok=2,
        **_ATTENTION,
    ),
    "llama": dict(
        hidden_size=24, intermediate_size=40, num_hidden_layers=4, tie_word_embeddings=True, bos_token_id=1,
        eos_token_id=[2, 5], pad_token_id=None, **_ATTENTION,
    ),
    "mamba2": dict(
        hidden_size=24, num_hidden_layers=3, state_size=12, num_heads=8, head_dim=6, n_groups=2, expand=2, chunk_size=8,
        tie_word_embeddings=False,
    ),
    "recurrent_gemma": dict(
        hidden_size=24, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1,
        head_dim=6, lru_width=24, attention_window_size=16, block_types=["recurrent", "attention", "recurrent"],
    ),
    "gpt2": dict(n_embd=24, n_inner=40, n_layer=3, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0),
}  # fmt: skip

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


@torch.no_grad()
def build(
    name: str, folder: Path, *, dtype: torch.dtype = torch.float32, shard: str = "5GB", over: Mapping[str, Any] = {}
) -> Path:
    """Save the tiny model ``name``; every parameter is random, so that a wrong cut shows in the logits."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **{"vocab_size": VOCAB, **CONFIGS[name], **over})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape)
        if name.endswith(("A_log", "dt_bias")):
            # steps below time_step_min are clamped by transformers in cached decoding only
            p.copy_(1 + 0.3 * noise)
        else:
            p.copy_(p + 0.2 * noise if p.ndim == 1 else noise / p.shape[-1] ** 0.5)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return folder


class Pool:
    """Checkpoints shared by tests; nobody may write into them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.get = cache(self._build)

    def _build(self, name: str, shard: str = "5GB", dtype: torch.dtype = torch.float32) -> Path:
        return build(name, self.folder / f"{name}-{shard}-{str(dtype).split('.')[1]}", dtype=dtype, shard=shard)

    @cached_property
    def with_tokenizer(self) -> Path:
        """A llama whose vocabulary is a trained byte-level BPE of 321 tokens, and 7 rows more than that."""
        folder = self.folder / "with-tokenizer"
        tokenizer = train_tokenizer()
        special = {f"{n}_token_id": tokenizer.convert_tokens_to_ids(t) for n, t in SPECIAL.items()}
        build("llama", folder, over={"vocab_size": len(tokenizer) + 7, **special})
        tokenizer.save_pretrained(folder)
        return folder


CORPUS = [
    "The secateurs cut the dead wood; the living wood heals. Cutting is easy, healing takes time.",
    "A rose pruned in the cold of winter flowers in the warmth of summer, and the gardener counts 12 buds.",
    "The theory of the thing is that there, then, they and them share their beginnings.",
]
SPECIAL = {"bos": "<|start|>", "eos": "<|end|>", "pad": "<|pad|>"}


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE; its special tokens come last, so that every trim moves them."""
    tokenizer = Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=318, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{f"{n}_token": t for n, t in SPECIAL.items()})
