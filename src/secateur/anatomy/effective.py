"""The config as transformers understands it: defaults filled in, aliases resolved, never any remote code."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from secateur.checkpoint.files import short
from secateur.errors import ConfigError

#: Counts that config classes expand into lists while they are built; far above what any model has.
_EXPANDED = ("num_hidden_layers", "num_labels")
_MAX_COUNT = 100_000
_MAX_INTEGER = 2**63 - 1


class Effective(Mapping[str, Any]):
    """Read-only view of a transformers config object; a missing field reads as ``None`` only through ``get``."""

    def __init__(self, config: Any) -> None:
        self._config = config

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self._config, key)
        except AttributeError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._config.to_dict())

    def __len__(self) -> int:
        return len(self._config.to_dict())

    @property
    def object(self) -> Any:
        """The transformers config itself, for building modules."""
        return self._config

    def aliases(self, name: str) -> set[str]:
        """All spellings of a config field, ``name`` among them."""
        table: dict[str, str] = dict(getattr(self._config, "attribute_map", {}))
        canonical = table.get(name, name)
        return {name, canonical} | {alias for alias, target in table.items() if target == canonical}


def effective_config(raw: Mapping[str, Any]) -> Effective:
    """Build the config object of ``raw['model_type']`` with the class that ships in transformers.

    Raises ConfigError when transformers does not know the type or refuses the values.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = raw.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise ConfigError(
            f"transformers has no built-in config class for model_type {model_type!r}",
            hint="upgrade transformers, or use a checkpoint whose architecture is built in; remote code is never run",
        )
    config_class = CONFIG_MAPPING[model_type]
    _refuse_endless(raw, getattr(config_class, "attribute_map", {}))
    try:
        with _quiet():
            return Effective(config_class.from_dict(_plain_floats(dict(raw))))
    except Exception as e:  # transformers validates with many exception types; all mean the same to the user
        reason = " ".join(str(e).split())[:400]
        raise ConfigError(
            f"transformers refuses this {model_type} config: {type(e).__name__}: {reason}",
            hint="correct config.json; the message above names the field",
        ) from None


def _refuse_endless(raw: Mapping[str, Any], spellings: Mapping[str, str]) -> None:
    """Refuse numbers that would keep the config class, or the arithmetic after it, busy until memory runs out."""
    for key, value in raw.items():
        if isinstance(value, int) and abs(value) > _MAX_INTEGER:
            raise ConfigError(f"config field {key!r} is {short(value)}, which no reader of 64-bit integers understands")
    for name in _EXPANDED:
        for key in {name, spellings.get(name, name)}:
            if key in raw and isinstance(raw[key], int) and raw[key] > _MAX_COUNT:
                raise ConfigError(f"config field {key!r} is {raw[key]}, which no model has")


def _plain_floats(value: Any) -> Any:
    """Undo transformers' JSON spelling of non-finite floats, ``{"__float__": "Infinity"}``."""
    if isinstance(value, dict):
        if set(value) == {"__float__"} and value["__float__"] in ("Infinity", "-Infinity", "NaN"):
            return float(value["__float__"])
        return {k: _plain_floats(v) for k, v in value.items()}
    return [_plain_floats(v) for v in value] if isinstance(value, list) else value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Config classes warn about unrelated defaults; those lines would drown our own messages."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
