"""Every file of a trimmed tokenizer agrees with the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from secateur.pruning.vocab import (
    choose_tokens,
    verify_trim,
)
from tests.prune.made import (
    CORPUS,
    byte_fallback,
    byte_level,
    full_folder,
    load,
    save,
    trimmed,
)

# ---------------------------------------------------------------- every file consistent


def test_all_files_are_renumbered(tmp_path: Path) -> None:
    old, new, trim, _ = full_folder(tmp_path)
    assert trim.kept == (*range(298), 420, 421)
    assert trim.config_edits == {"bos_token_id": 298, "eos_token_id": [0, 299], "text_config.eos_token_id": 298}
    assert set(trim.left) == {"tokenizer.model"} and "config.json" not in trim.files
    assert set(trim.files) == {path.name for path in new.iterdir()}
    made = load(new)
    assert made["padding"]["pad_id"] == 299
    assert made["post_processor"]["special_tokens"]["<|start|>"]["ids"] == [298]
    assert [token["id"] for token in made["added_tokens"]] == [0, 298, 299]
    assert load(new, "generation_config") == {
        "bos_token_id": 298,
        "eos_token_id": [299, 0],
        "decoder_start_token_id": None,
        "suppress_tokens": [5, 298],
        "begin_suppress_tokens": [-1],
        "bad_words_ids": [[298], [7, 299]],
        "forced_decoder_ids": [[1, 298], [2, None]],
        "sequence_bias": [[[298, 3], -1.5]],
    }
    assert list(load(new, "tokenizer_config")["added_tokens_decoder"]) == ["0", "298", "299"]
    assert load(new, "added_tokens") == {"<|start|>": 298, "<|pad|>": 299}
    assert (new / "special_tokens_map.json").read_bytes() == (old / "special_tokens_map.json").read_bytes()
    assert load(new, "vocab") == made["model"]["vocab"]
    slow = models.BPE.from_file(str(new / "vocab.json"), str(new / "merges.txt"))
    fast = Tokenizer.from_file(str(new / "tokenizer.json"))
    assert [token.id for token in slow.tokenize("thethere")] == fast.encode("thethere", add_special_tokens=False).ids


def test_template_ids_of_roberta_and_bert_processors_move(tmp_path: Path) -> None:
    raw = byte_level()
    roberta = {"type": "RobertaProcessing", "sep": ["<|pad|>", 421], "cls": ["<|start|>", 420]}
    bert = {"type": "BertProcessing", "sep": ["<|end|>", 0], "cls": ["<|start|>", 420]}
    raw["post_processor"] = {"type": "Sequence", "processors": [roberta, {**bert}]}
    roberta |= {"trim_offsets": True, "add_prefix_space": False}
    _, new, _ = trimmed(tmp_path, raw, choose_tokens(raw, 300))
    first, second = load(new)["post_processor"]["processors"]
    assert (first["sep"], first["cls"]) == (["<|pad|>", 299], ["<|start|>", 298])
    assert (second["sep"], second["cls"]) == (["<|end|>", 0], ["<|start|>", 298])


def test_vocab_and_merges_that_disagree_are_left_behind(tmp_path: Path) -> None:
    raw = byte_level()
    old = save(tmp_path / "old", raw, vocab={"the": 1})
    (old / "merges.txt").write_text("t h\n")
    _, new, trim = trimmed(tmp_path, raw, choose_tokens(raw, 300))
    assert set(trim.left) == {"vocab.json", "merges.txt"} and all("disagrees" in why for why in trim.left.values())
    assert {path.name for path in new.iterdir()} == {"tokenizer.json"}


def test_legacy_merges_stay_legacy(tmp_path: Path) -> None:
    raw = byte_level()
    raw["model"]["merges"] = [" ".join(pair) for pair in raw["model"]["merges"]]
    old, new, trim = trimmed(tmp_path, raw, choose_tokens(raw, 350))
    assert all(isinstance(merge, str) for merge in load(new)["model"]["merges"])
    assert verify_trim(old, new, trim, CORPUS).failures == ()


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend", "GPT2Tokenizer", "LlamaTokenizer"])
def test_transformers_load_the_result(name: str, tmp_path: Path) -> None:
    fallback = name == "LlamaTokenizer"
    raw = byte_fallback() if fallback else byte_level()
    specials = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    if not fallback:
        specials = {"bos_token": "<|start|>", "eos_token": "<|end|>", "unk_token": "<|end|>", "pad_token": "<|pad|>"}
    others = {"tokenizer_config": {"tokenizer_class": name, **specials}, "config": {"model_type": "llama"}}
    old, new, trim = trimmed(tmp_path, raw, choose_tokens(raw, 330), **others)
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (old, new))
    assert len(after) == 330
    for special in specials:
        assert getattr(after, f"{special}_id") == trim.mapping[getattr(before, f"{special}_id")]
    for text in CORPUS:
        ids = after(text, add_special_tokens=False).input_ids
        assert after.decode(ids) == before.decode(before(text, add_special_tokens=False).input_ids)
        old_ids = before(text).input_ids
        if all(id_ in trim.mapping for id_ in old_ids):
            assert after(text).input_ids == [trim.mapping[id_] for id_ in old_ids]
    assert len(PreTrainedTokenizerFast(tokenizer_file=str(new / "tokenizer.json"))) == 330


# ---------------------------------------------------------------- the check can fail


def test_verify_finds_a_wrong_trim(raw: dict[str, Any], tmp_path: Path) -> None:
    old, new, trim = trimmed(tmp_path, raw, choose_tokens(raw, 400))
    made = load(new)
    vocab = made["model"]["vocab"]
    vocab["e"], vocab["t"] = vocab["t"], vocab["e"]
    save(new, made)
    assert not verify_trim(old, new, trim, ["e t et te"]).ok
    vocab["e"], vocab["t"] = vocab["t"], vocab["e"]
    made["model"]["merges"] = made["model"]["merges"][: len(made["model"]["merges"]) // 2]
    save(new, made)
    assert not verify_trim(old, new, trim, " ".join(CORPUS).split()).ok
