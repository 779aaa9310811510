"""Token ids written in config files: which fields hold them, which rows they demand, and how they read after a trim.

Ids below zero or beyond the embedding name no row (``-1`` for "none", stale library defaults); they stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from secateur.errors import ConfigError, UsageError

# Sections of a config.json that hold the language model's own fields; other sections count in other vocabularies.
TEXT_SECTIONS = ("text_config",)
# Every id in these fields needs its row: bos/eos/pad/decoder_start/forced_*/image_token_id, id or list of ids.
_NEEDED = re.compile(r".*_token_(id|ids|index)|force_words_ids")
# Lists of what must not be generated: an id or a sequence of ids whose token is gone cannot be generated any more.
_FLAT_LISTS = ("suppress_tokens", "begin_suppress_tokens")

Ids = Mapping[int, int]


def vocab_rows(config: Mapping[str, Any]) -> int | None:
    """Embedding rows a config.json states, or None where it states none."""
    for section in (config, *_sections(config)):
        rows = section.get("vocab_size")
        if rows is not None:
            if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
                raise ConfigError(f"config.json: vocab_size must be a positive integer, got {rows!r}")
            return rows
    return None


def needed_ids(config: Mapping[str, Any], rows: int, source: str) -> set[int]:
    """Ids below ``rows`` that fields of a config or generation config need to keep."""
    found: set[int] = set()

    def note(id_: int) -> int:
        found.add(id_)
        return id_

    for section in (config, *_sections(config)):
        for key, value in section.items():
            if _NEEDED.fullmatch(key):
                _map_nested(value, note, f"{source}: {key}")
            elif key == "forced_decoder_ids":
                _map_forced(value, note, f"{source}: {key}")
    return {id_ for id_ in found if 0 <= id_ < rows}


def edited_fields(config: Mapping[str, Any], mapping: Ids, rows: int, source: str) -> dict[str, Any]:
    """New values of every token-id field whose value changes; a field of a section is named ``section.field``."""

    def renumber(id_: int) -> int:
        if not 0 <= id_ < rows:
            return id_
        if id_ not in mapping:
            raise UsageError(f"{source} needs token id {id_}, which the trimmed vocabulary does not keep")
        return mapping[id_]

    edits: dict[str, Any] = {}
    for prefix, section in (("", config), *((f"{name}.", config[name]) for name in _section_names(config))):
        for key, value in section.items():
            new = _edited(key, value, renumber, mapping, f"{source}: {prefix}{key}")
            if new != value:
                edits[prefix + key] = new
    return edits


def apply_edits(config: dict[str, Any], edits: Mapping[str, Any]) -> None:
    """Write ``edited_fields`` back into the config they were made from, in place and in the file's own order."""
    for path, value in edits.items():
        section, _, key = path.rpartition(".")
        (config[section] if section else config)[key] = value


def _edited(key: str, value: Any, renumber: Callable[[int], int], mapping: Ids, place: str) -> Any:
    if value is None:
        return None
    if _NEEDED.fullmatch(key):
        return _map_nested(value, renumber, place)
    if key == "forced_decoder_ids":
        return _map_forced(value, renumber, place)
    if key in _FLAT_LISTS:
        return [mapping.get(id_, id_) for id_ in _id_list(value, place) if id_ in mapping or id_ < 0]
    if key == "bad_words_ids":
        words = _id_lists(value, place)
        return [[mapping[id_] for id_ in word] for word in words if all(id_ in mapping for id_ in word)]
    if key == "sequence_bias" and isinstance(value, list):
        pairs = [pair for pair in value if isinstance(pair, list) and len(pair) == 2]
        if len(pairs) != len(value):
            raise ConfigError(f"{place} must be a list of [ids, bias], got {value!r}")
        words = _id_lists([pair[0] for pair in pairs], place)
        kept = [(word, pair[1]) for word, pair in zip(words, pairs, strict=True) if all(id_ in mapping for id_ in word)]
        return [[[mapping[id_] for id_ in word], bias] for word, bias in kept]
    return value


def _map_nested(value: Any, change: Callable[[int], int], place: str) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_map_nested(member, change, place) for member in value]
    return change(_integer(value, place))


def _map_forced(value: Any, change: Callable[[int], int], place: str) -> Any:
    """``forced_decoder_ids``: [[position, id or null], ...]; positions are no ids."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise ConfigError(f"{place} must be a list of [position, id], got {value!r}")
    return [[position, None if id_ is None else change(_integer(id_, place))] for position, id_ in value]


def _id_list(value: Any, place: str) -> list[int]:
    if not isinstance(value, list):
        raise ConfigError(f"{place} must be a list of token ids, got {value!r}")
    return [_integer(id_, place) for id_ in value]


def _id_lists(value: Any, place: str) -> list[list[int]]:
    if not isinstance(value, list):
        raise ConfigError(f"{place} must be a list of lists of token ids, got {value!r}")
    return [_id_list(word, place) for word in value]


def _integer(value: Any, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{place} must hold token ids, got {value!r}")
    return value


def _section_names(config: Mapping[str, Any]) -> Iterator[str]:
    return (name for name in TEXT_SECTIONS if isinstance(config.get(name), dict))


def _sections(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (config[name] for name in _section_names(config))
