"""llama.cpp runs what was written: the logits of transformers, prompt and single tokens, and the same tokens of text.

Needs llama-cpp-python, which is no dependency of this project (it builds from source for minutes).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from secateur.export.compressed import CompressedTensors
from secateur.export.gguf import write_gguf
from secateur.layerwise.quantize import QUANTIZE
from secateur.layerwise.run import Job, compress
from secateur.model import open_model
from tests.export.gguf_rows import ROWS, VOCAB, bpe, build

try:
    import llama_cpp
except ImportError:
    warnings.warn("llama-cpp-python is not installed: NOTHING here runs a GGUF file", stacklevel=1)
    pytest.skip("llama-cpp-python is not installed", allow_module_level=True)

TOKENS = 24
_F32 = 0  # ggml's number of the type


def engine(path: Path) -> Any:
    """llama.cpp with everything in float32."""
    return llama_cpp.Llama(
        str(path), n_ctx=64, n_batch=64, n_threads=1, logits_all=True, type_k=_F32, type_v=_F32, verbose=False
    )


def logits_of(llama: Any, ids: list[int]) -> np.ndarray:
    """(tokens, vocab), the last three tokens one by one."""
    llama.reset()
    llama.eval(ids[:-3])
    for i in ids[-3:]:
        llama.eval([i])
    return np.array(llama.scores[: len(ids)])


@torch.no_grad()
def plain_logits(folder: Path, ids: list[int]) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager").eval()
    return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """max|a - b| over the spread of a, per-token shifts apart (there are none)."""
    return float(np.abs(a - b).max() / a.std())


@pytest.mark.parametrize("name", ROWS)
def test_logits_agree(name: str, tmp_path: Path) -> None:
    folder = build(name, tmp_path / "model")
    with open_model(folder) as model:
        write_gguf(model, tmp_path / "m.gguf", type="f32")
    ids = torch.randint(1, VOCAB, (TOKENS,), generator=torch.Generator().manual_seed(3)).tolist()
    want = plain_logits(folder, ids)
    got = logits_of(engine(tmp_path / "m.gguf"), ids)
    assert got.shape == want.shape and distance(want, got) < 5e-3


def test_packed_codes_run(tmp_path: Path) -> None:
    """A packed hybrid: its codes in q4_0 blocks give what transformers computes from the same codes, but for the
    rounding of activations to 8 bits that llama.cpp does in such products."""
    method = QUANTIZE["rtn"]
    folder = build("nemotron_h", tmp_path / "model")
    with open_model(folder) as model:
        job = Job(step="quantize", storage=CompressedTensors(model))
        with compress(model, None, tmp_path / "small", method, method.configure(bits=4, group=32), job) as small:
            assert write_gguf(small, tmp_path / "m.gguf", type="f32").kept > 0
    ids = torch.randint(1, VOCAB, (TOKENS,), generator=torch.Generator().manual_seed(3)).tolist()
    want, got = plain_logits(tmp_path / "small", ids), logits_of(engine(tmp_path / "m.gguf"), ids)
    far = plain_logits(folder, ids)
    off = np.sqrt(np.mean((want - got) ** 2))
    assert off < 0.2 * np.sqrt(np.mean((want - far) ** 2)), "no nearer to the packed model than to its parent"


def test_text_is_split_alike(tmp_path: Path) -> None:
    tokenizer = bpe()
    folder = build("llama", tmp_path / "model", vocab_size=tokenizer.get_vocab_size())
    tokenizer.save(str(folder / "tokenizer.json"))
    with open_model(folder) as model:
        write_gguf(model, tmp_path / "m.gguf", type="f32")
    llama = engine(tmp_path / "m.gguf")
    for text in ("the old house was cold", "it's 1492, by the sea!", "  zwei  Häuser\n\nand more"):
        found = llama.tokenize(text.encode(), add_bos=False, special=False)
        assert found == tokenizer.encode(text, add_special_tokens=False).ids, text
        assert llama.detokenize(found).decode() == text
