"""The page itself: template, style and script in one file that asks the network for nothing.

Strings reach the page in two ways only: through the template, which escapes all of them, and as JSON in which ``<``,
``>`` and ``&`` are spelled as escapes. A content security policy names the page's own script by its hash, so that no
other could run and nothing can be fetched even if a string got through.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from secateur.checkpoint.files import disk_error
from secateur.reporting.collect import Collected
from secateur.reporting.view import view

_SCRIPTS = ("svg.js", "scatter.js", "lines.js", "search.js", "page.js")


def render(found: Collected) -> str:
    """The whole HTML document."""
    shown = view(found)
    data = embed(shown.pop("charts"))
    script = '(() => {\n"use strict";\n' + "\n".join(map(_asset, _SCRIPTS)) + "\n})();"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_asset("page.html.j2"))
    style = Markup(_asset("page.css"))
    return template.render(**shown, style=style, script=Markup(script), digest=digest, data=data)


def write(found: Collected, out: Path) -> int:
    """Write the page to ``out``, whole or not at all; returns its bytes. CheckpointError if the disk refuses."""
    content = render(found).encode("utf-8", errors="replace")
    partial = out.with_name(f".{out.name}.part")
    try:
        partial.write_bytes(content)
        partial.replace(out)
    except OSError as cause:
        partial.unlink(missing_ok=True)
        raise disk_error(cause, out, needed=len(content)) from cause
    return len(content)


def embed(value: Any) -> Markup:
    """JSON that may stand inside a script element: no character in it means anything to HTML."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _asset(name: str) -> str:
    return (files("secateur.reporting") / "assets" / name).read_text(encoding="utf-8")


__all__ = ["embed", "render", "write"]
