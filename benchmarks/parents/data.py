"""Text files to packed sequences: find the files, train a byte-level BPE, tokenize once, deal rows out by step.

Documents are separated by two blank lines (files by their ends); each ends with the end-of-sequence token. A row of
``length`` targets is predicted from its own tokens shifted right behind a beginning-of-sequence token, so every token
is predicted exactly once and no row reads another.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from secateur.errors import UsageError

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
SPECIAL = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
HOW_TO_GET_TEXT = (
    "name a folder of UTF-8 text files with --data or SECATEUR_DATA: training files in FOLDER/train/*.txt (or "
    "FOLDER/*.txt) and a held-out file in FOLDER/eval/*heldout*.txt (or --held-out FILE). Public-domain books of "
    "https://www.gutenberg.org or https://standardebooks.org serve; the published parents were trained on 90 MB of such"
)


@dataclass(frozen=True)
class Text:
    """Training files and the one file that is never trained on."""

    train: tuple[Path, ...]
    held_out: Path


def find_text(folder: Path | None, held_out: Path | None) -> Text:
    """The text under ``folder``. Raises UsageError with directions when something is missing."""
    if folder is None or not folder.is_dir():
        raise UsageError(f"there is no text to train on: data folder is {folder}", hint=HOW_TO_GET_TEXT)
    train = sorted((folder / "train").glob("*.txt")) or sorted(folder.glob("*.txt"))
    found = held_out or next(iter(sorted((folder / "eval").glob("*heldout*.txt"))), None)
    train = [file for file in train if found is None or file.resolve() != found.resolve()]
    if not train:
        raise UsageError(f"{folder} holds no training text (*.txt)", hint=HOW_TO_GET_TEXT)
    if found is None or not found.is_file():
        raise UsageError(f"no held-out file: {held_out or folder / 'eval'}", hint=HOW_TO_GET_TEXT)
    return Text(tuple(train), found)


def documents(file: Path) -> Iterator[str]:
    """The documents of a file, without the blank lines between them."""
    text = file.read_text(encoding="utf-8")
    return (part for part in (piece.strip("\n") for piece in text.split("\n\n\n")) if part)


def train_tokenizer(files: Sequence[Path], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE that starts encoded text with the beginning-of-sequence token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for file in files for text in documents(file)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


def load_tokenizer(folder: Path, files: Sequence[Path], vocabulary: int) -> PreTrainedTokenizerFast:
    """The tokenizer kept in ``folder``, trained on ``files`` first when it is not there."""
    if not (folder / "tokenizer.json").exists():
        staging = folder.with_name(f"{folder.name}.{os.getpid()}")
        train_tokenizer(files, vocabulary).save_pretrained(staging)
        staging.rename(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def token_bytes(tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """UTF-8 bytes of text behind each token id (v,); special tokens stand for none."""
    lengths = torch.zeros(len(tokenizer), dtype=torch.float64)
    special = set(tokenizer.all_special_ids)
    for token, index in tokenizer.get_vocab().items():
        lengths[index] = 0 if index in special else len(token)  # byte-level: one character stands for one byte
    return lengths


def tokenize(files: Sequence[Path], tokenizer: PreTrainedTokenizerFast, cache: Path) -> NDArray[np.uint16]:
    """All documents' tokens in one flat array, kept under ``cache`` by content of tokenizer and identity of files."""
    stamp = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
    for file in files:
        stamp.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}\n".encode())
    path = cache / f"tokens-{stamp.hexdigest()[:16]}.npy"
    if not path.exists():
        parts = [_encode(file, tokenizer) for file in files]
        staging = path.with_suffix(f".{os.getpid()}.tmp.npy")
        np.save(staging, np.concatenate(parts))
        staging.rename(path)
    tokens: NDArray[np.uint16] = np.load(path, mmap_mode="r")
    return tokens


def _encode(file: Path, tokenizer: PreTrainedTokenizerFast) -> NDArray[np.uint16]:
    ids: list[int] = []
    for encoded in tokenizer.backend_tokenizer.encode_batch_fast(list(documents(file)), add_special_tokens=False):
        ids.extend(encoded.ids)
        ids.append(tokenizer.eos_token_id)
    return np.asarray(ids, dtype=np.uint16)


@dataclass(frozen=True)
class Rows:
    """A flat token array seen as whole rows of ``length``; what does not fill a row is left out."""

    tokens: NDArray[np.uint16]
    length: int
    bos: int

    def __len__(self) -> int:
        return len(self.tokens) // self.length

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Inputs and targets (len(indices), length) of the rows named."""
        rows = np.stack([self.tokens[i * self.length : (i + 1) * self.length] for i in indices])
        targets = torch.from_numpy(rows.astype(np.int64))
        return torch.nn.functional.pad(targets[:, :-1], (1, 0), value=self.bos), targets


@dataclass
class Shuffled:
    """Row numbers in an order that is a pure function of seed and position: a new permutation for every epoch."""

    count: int
    seed: int
    _epoch: int = -1
    _order: NDArray[np.int64] | None = None

    def at(self, position: int) -> int:
        epoch, inside = divmod(position, self.count)
        if epoch != self._epoch or self._order is None:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
            self._epoch = epoch
        return int(self._order[inside])
