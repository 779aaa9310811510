"""Tiny checkpoints with a tokenizer, built in code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

TEXT = (
    "The gardener cut the dead wood, and the rose flowered again.\n\n"
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich: naïve façade, 中文字 and 🌹🌹 roses.\n\n"
    "Where the living wood begins, the knife must stop; what is cut too deep does not heal, and nobody can say why.\n\n"
    "A bed of twelve rows holds twelve times twelve bulbs, and every bulb has its own idea of spring and of the cold.\n"
) * 3

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def tokenizer(size: int = 320, *, bos: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that one character can be several tokens; with ``bos`` it opens every text with <s>."""
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<s>", "</s>"]
    found.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=size, special_tokens=specials, initial_alphabet=alphabet)
    )
    if bos:
        found.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=found, bos_token="<s>", eos_token="</s>")


@torch.no_grad()
def hybrid(folder: Path, *, size: int = 320, seed: int = 0, bos: bool = False, **over: Any) -> Path:
    """A Nemotron-H of a few thousand parameters with random weights."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "nemotron_h", hidden_size=24, intermediate_size=40, ssm_state_size=12, mamba_num_heads=8, mamba_head_dim=6,
        n_groups=2, chunk_size=8, num_attention_heads=4, num_key_value_heads=2, head_dim=8, tie_word_embeddings=False,
        max_position_embeddings=256, vocab_size=size, bos_token_id=0, eos_token_id=1, pad_token_id=0,
        layers_block_type=["linear_attention", "mlp", "full_attention", "linear_attention", "mlp"], **over,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for p in model.parameters():
        p.copy_(p + 0.2 * torch.randn(p.shape) if p.ndim == 1 else torch.randn(p.shape) / p.shape[-1] ** 0.5)
    model.save_pretrained(folder)
    tokenizer(size, bos=bos).save_pretrained(folder)
    return folder
