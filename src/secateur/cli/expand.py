"""``secateur expand``: a packed checkpoint back to the standard one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli import options
from secateur.cli.common import byte_progress, out

NAME = "expand"
HELP = """Turn a packed checkpoint (--store factors, ..) back into the standard one, to the last bit.

Example:

    secateur expand ./packed --out ./checkpoint"""


def run(
    packed: Annotated[Path, typer.Argument(help="folder that --store wrote")],
    save: options.Result,
) -> None:
    from secateur.export.packed import expand

    with byte_progress("expanding") as progress:
        expand(packed, save, progress=progress).weights.close()
    out.print(f"wrote {save}", soft_wrap=True)
