"""JSON from untrusted files: every way it can be wrong becomes one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from secateur.checkpoint.files import short
from secateur.errors import SecateurError


def parse_json(
    raw: bytes, *, path: Path, error: type[SecateurError], unique: bool = False, specials: bool = False
) -> Any:
    """Parse UTF-8 JSON. ``unique`` refuses repeated keys; ``specials`` lets NaN and Infinity through, as Python."""

    def refuse(token: str) -> NoReturn:
        raise error(f"{path}: {token} is not JSON")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise error(f"{path}: the name {short(twice)} appears twice")
        return found

    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise error(f"{path}: not UTF-8 at byte {cause.start}") from None
    try:
        return json.loads(
            text, object_pairs_hook=pairs if unique else None, parse_constant=None if specials else refuse
        )
    except json.JSONDecodeError as cause:
        raise error(f"{path}: not JSON: {cause.msg} at line {cause.lineno} column {cause.colno}") from None
    except RecursionError:
        raise error(f"{path}: not usable JSON: nested too deeply") from None
    except ValueError:  # Python's limit on the digits of one integer
        raise error(f"{path}: not usable JSON: a number has too many digits") from None


def printable(text: str) -> bool:
    """False for strings with lone surrogates: JSON can spell them, UTF-8 (and so every file and terminal) cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
