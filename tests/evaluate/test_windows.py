"""Every token is a target once, sees what is stated, and stands for its bytes of raw text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.errors import UsageError
from secateur.evaluation.windows import IGNORE, Source, _cut, make_windows, read_sources

from .models import TEXT, tokenizer


@given(st.data())
@settings(deadline=None, database=None)
def test_each_token_is_scored_once_with_the_context_it_was_promised(data: st.DataObject) -> None:
    ids = list(range(100, 100 + data.draw(st.integers(0, 60))))
    bos = data.draw(st.sampled_from([None, 7]))
    length = data.draw(st.integers(2, 12))
    stride = data.draw(st.integers(1, length))
    scored = []
    for inputs, targets in _cut(ids, bos, length, stride):
        assert len(inputs) == len(targets) <= length
        assert bos is None or int(inputs[0]) == bos
        body = inputs.tolist() if bos is None else inputs.tolist()[1:]
        assert body == ids[ids.index(body[0]) :][: len(body)] if body else True
        first = True
        for i, target in enumerate(targets.tolist()):
            if target == IGNORE:
                continue
            at = target - 100
            before = inputs.tolist()[: i + 1]
            assert before[-1] == (ids[at - 1] if at and before[-1] != bos else bos)
            if first and scored and stride < length:
                assert len(before) >= length - stride + 1 or len(before) == at + (bos is not None)
            first = False
            scored.append(target)
    assert scored == (ids if bos is not None else ids[1:])


def test_segments_share_nothing() -> None:
    found = [(a.tolist(), b.tolist()) for a, b in _cut(list(range(8)), None, 3, 3)]
    assert found == [([0, 1, 2], [1, 2, 3]), ([3, 4, 5], [4, 5, 6]), ([6], [7])]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("text", [TEXT, "中文字", "🌹", "é", "plain"])
def test_bytes_are_those_of_the_raw_text(text: str, bos: bool) -> None:
    tok = tokenizer(bos=bos)
    ids = tok(text, add_special_tokens=False)["input_ids"]
    try:
        made = make_windows(tok, [Source("t", (text,))], 16)
    except UsageError:
        assert not bos and len(ids) < 2
        return
    first = text[: tok(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"][0][1]]
    whole = len(text.encode("utf-8"))
    assert made.scored_bytes == (whole if bos else whole - len(first.encode("utf-8")),)
    assert sum(int((w.targets != IGNORE).sum()) for w in made.windows) == len(ids) - (not bos)


def test_documents_do_not_see_each_other() -> None:
    tok = tokenizer(bos=True)
    made = make_windows(tok, [Source("t", ("one rose", "two roses"))], 64)
    assert len(made.windows) == 2
    assert all(int(w.inputs[0]) == 0 for w in made.windows)


def test_the_limit_is_in_bytes_and_splits_no_character(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("aé中🌹" * 5, encoding="utf-8")
    for limit in range(1, 60):
        found = read_sources([path], limit)[0]
        assert found.documents[0] == "aé中🌹" * 5 or ("aé中🌹" * 5).startswith(found.documents[0])
        assert limit - 3 <= found.bytes <= limit or found.bytes == 50


def test_text_that_cannot_be_scored_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_text("")
    with pytest.raises(UsageError, match="no text"):
        read_sources([path])
    with pytest.raises(UsageError, match="too short"):
        make_windows(tokenizer(), [Source("t", ("a",))], 16)
    for window, stride in ((1, 1), (8, 9), (8, 0)):
        with pytest.raises(UsageError, match="window"):
            make_windows(tokenizer(), [Source("t", (TEXT,))], window, stride)
