"""The registry of families: the file name is the model type, and the file holds one ``FAMILY``."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from secateur.anatomy.family import Family
from secateur.errors import ConfigError


@cache
def known() -> tuple[str, ...]:
    """Model types with a declaration."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


@cache
def family_of(model_type: str) -> Family:
    """The declaration of ``model_type``.

    Raises ConfigError naming the supported types when there is none.
    """
    if model_type not in known():
        raise ConfigError(
            f"no family is declared for model_type {model_type!r}; supported: {', '.join(known())}",
            hint="a new family is one declaration file; CONTRIBUTING.md shows how",
        )
    family = importlib.import_module(f"{__name__}.{model_type}").FAMILY
    assert isinstance(family, Family)
    return family
