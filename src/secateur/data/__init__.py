"""Text in, windows of token ids out: plain files, JSONL, parquet or a data set of the hub, packed under a seed."""

from secateur.data.pack import Border, count_tokens, pack
from secateur.data.read import read_texts
from secateur.data.tokenizer import check_vocabulary, load_tokenizer

__all__ = ["Border", "check_vocabulary", "count_tokens", "load_tokenizer", "pack", "read_texts"]
