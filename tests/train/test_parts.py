"""Settings, schedule, seams, cache and logs, each on its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.cli.distill import parse_pairs
from secateur.errors import CheckpointError, UsageError
from secateur.train.cache import SHARD, Layout, TeacherCache
from secateur.train.distribution import TopK, top_k
from secateur.train.log import Log, read_metrics
from secateur.train.seams import kept_layers, layer_pairs, projections
from secateur.train.settings import Settings, token_count


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (dict(tokens=100), "less than one step"),
        (dict(loss="kull"), "one of kl, reverse-kl, js"),
        (dict(hidden="l1"), "one of cosine, mse"),
        (dict(hidden_layers=((1, 2),)), "without a hidden"),
        (dict(hidden="mse", top_k=4), "needs the teacher itself"),
        (dict(top_k=4, ce=1.0), "no teacher to cache"),
        (dict(ce=1.5), "0 to 1"),
        (dict(lr=float("nan")), "positive"),
        (dict(batch=0), "batch is 0"),
    ],
)
def test_settings_that_make_no_sense(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Settings(**{"tokens": 10**6, **bad})


def test_schedule() -> None:
    settings = Settings(tokens=1000 * 16 * 512, lr=1e-3)
    rates = [settings.learning_rate(s) for s in range(settings.steps)]
    assert len(rates) == 1000 and max(rates) == pytest.approx(1e-3)
    assert rates[0] == pytest.approx(1e-3 / 60) and rates[59] == rates[60] == pytest.approx(1e-3)
    assert rates[60:] == sorted(rates[60:], reverse=True) and rates[-1] == pytest.approx(1e-3 / 20)
    middle = (60 + 999) / 2
    assert (rates[int(middle)] + rates[int(middle) + 1]) / 2 == pytest.approx((1e-3 + 5e-5) / 2, rel=1e-6)


def test_seams_of_a_depth_cut() -> None:
    record = {"step": "distill", "before": {"step": "prune", "layers": {"kept": [0, 1, 4, 5, 8]}}}
    assert kept_layers(record) == [0, 1, 4, 5, 8]
    # after layer 1 the parent ran 2 and 3, after 5 (now 3) 6 and 7, after 8 (now 4) 9
    assert layer_pairs(record, 5, 10, ()) == ((1, 3), (3, 7), (4, 9))
    assert layer_pairs(None, 3, 3, ()) == ((0, 0), (1, 1), (2, 2))
    assert layer_pairs(None, 2, 9, ((0, 3), (1, 8))) == ((0, 3), (1, 8))
    with pytest.raises(UsageError, match="does not say which were kept"):
        layer_pairs(None, 2, 9, ())
    with pytest.raises(UsageError, match="2:3, but the student has layers 0 to 1"):
        layer_pairs(None, 2, 9, ((2, 3),))


def test_projections_start_as_the_identity_on_shared_channels() -> None:
    assert projections(((0, 0),), 4, 4) is None
    maps = projections(((0, 0), (1, 1)), 3, 5)
    assert maps is not None and len(maps) == 2
    assert maps[0](torch.tensor([1.0, 2, 3])).tolist() == [1, 2, 3, 0, 0]


def layout(**over: Any) -> Layout:
    return Layout(
        **{**dict(windows=SHARD + 3, length=6, k=4, vocab=30, temperature=1.0, teacher="t", text="x"), **over}
    )


def knowledge(of: Layout) -> TopK:
    return top_k(torch.randn(of.windows * of.length, of.vocab, generator=torch.Generator().manual_seed(0)), of.k)


@pytest.mark.parametrize("vocab", [30, 70_000])
def test_cache_round_trip_and_exact_size(vocab: int, tmp_path: Path) -> None:
    about = layout(vocab=vocab)
    known = knowledge(about)
    cache = TeacherCache(tmp_path / "c", about)
    cache.prepare()
    assert cache.missing() == [0, 1]
    assert list(cache.fill([1], lambda a, b: known[slice(a * 6, b * 6)])) == [1]
    cache = TeacherCache(tmp_path / "c", about)
    assert cache.missing() == [0]
    list(cache.fill([0], lambda a, b: known[slice(a * 6, b * 6)]))
    found = cache.rows(14, about.windows + 2)
    want = torch.arange(about.windows * 6).view(-1, 6).roll(-14, 0)[: about.windows + 2 - 14].flatten()
    assert torch.equal(found.ids, known.ids[want])
    assert torch.equal(found.logp, known.logp[want].half()) and torch.equal(found.tail, known.tail[want])
    files = list((tmp_path / "c").glob("*.safetensors"))
    headers = sum(8 + int.from_bytes(f.read_bytes()[:8], "little") for f in files)
    assert sum(f.stat().st_size for f in files) - headers == about.nbytes


def test_cache_of_something_else_and_damage(tmp_path: Path) -> None:
    about = layout()
    known, cache = knowledge(about), TeacherCache(tmp_path, about)
    cache.prepare()
    list(cache.fill([0, 1], lambda a, b: known[slice(a * 6, b * 6)]))
    with pytest.raises(UsageError, match="teacher t there, u here"):
        TeacherCache(tmp_path, layout(teacher="u"))
    path = tmp_path / "teacher-000001.safetensors"
    path.write_bytes(path.read_bytes()[:-2])
    assert cache.rows(0, 2).ids.shape == (12, 4)
    with pytest.raises(CheckpointError, match=r"teacher-000001.*damaged"):
        cache.rows(15, 17)
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        cache.rows(17, 18)


def test_cache_that_does_not_fit_is_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="bytes needed"):
        TeacherCache(tmp_path / "c", layout(windows=1, length=10**14)).prepare()


def test_log_drops_lines_behind_the_saved_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": s, "seconds": s * 2.0}) + "\n" for s in (1, 2, 3)) + '{"step": 4, "se')
    log = Log(tmp_path, 2)
    assert log.elapsed == 4.0
    log.add({"step": 3, "seconds": 5.0})
    log.close()
    assert [(m["step"], m["seconds"]) for m in read_metrics(path)] == [(1, 2.0), (2, 4.0), (3, 5.0)]


def test_option_languages() -> None:
    assert parse_pairs("3:5, 7:11") == ((3, 5), (7, 11)) and parse_pairs(None) == ()
    assert [token_count(t, "--tokens") for t in ("20M", "1.5B", "300_000", "2k")] == [
        20_000_000,
        1_500_000_000,
        300_000,
        2000,
    ]
    for bad in ("", "0", "20MB", "-3", "1e6"):
        with pytest.raises(UsageError, match="--tokens"):
            token_count(bad, "--tokens")
    with pytest.raises(UsageError, match="'3-5'"):
        parse_pairs("3-5")


def test_the_command_has_the_defaults_of_the_library() -> None:
    import dataclasses
    import inspect

    from secateur.cli import distill

    options = inspect.signature(distill.run).parameters
    for field in dataclasses.fields(Settings):
        if field.name not in ("tokens", "hidden_layers"):
            assert options[field.name].default == field.default, field.name
