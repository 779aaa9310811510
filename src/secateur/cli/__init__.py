"""The command line: thin verbs over the library. Wrong input ends in one message and exit code 2, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from secateur.cli import (
    calibrate,
    convert,
    demo,
    distill,
    eval,
    expand,
    export,
    factorize,
    inspect,
    plan,
    prune,
    quantize,
    recipe,
    repair,
    report,
    schedule,
    search,
    shed,
    sparsify,
    verify,
)
from secateur.cli.common import err
from secateur.errors import SecateurError

INTERRUPTED = 130
"""128 + SIGINT, as shells have it; the parser turns KeyboardInterrupt into it."""

app = typer.Typer(
    name="secateur",
    help="Make language models smaller and keep them good: a standard checkpoint in, a standard checkpoint out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for verb in (
    inspect,
    calibrate,
    plan,
    search,
    shed,
    prune,
    repair,
    sparsify,
    factorize,
    quantize,
    convert,
    verify,
    distill,
    eval,
    report,
    schedule,
    recipe,
    export,
    expand,
    demo,
):
    app.command(verb.NAME, help=verb.HELP)(verb.run)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 a verification failed, 2 the input cannot be used, 130 interrupted."""
    # torch reads it when it is imported: one-shot methods touch fresh memory all the time, and pages of 2 MB instead of
    # 4 kB took a tenth off the wall time of Wanda on 303 M parameters
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    try:
        app(args=list(argv), standalone_mode=True)
    except SystemExit as e:  # 0 done, 1 where a verb says so, 2 wrong usage, 130 for Ctrl-C
        if e.code == INTERRUPTED:
            err.print("interrupted; nothing was left half-written")
        return e.code if isinstance(e.code, int) else 2
    except SecateurError as e:
        _say(e.message, e.hint)
    except (OSError, MemoryError) as e:
        where = f": {e.filename}" if isinstance(e, OSError) and e.filename else ""
        _say(f"{type(e).__name__}{where}: {(e.strerror or e) if isinstance(e, OSError) else 'out of memory'}", None)
    except RuntimeError as e:
        if not _is_out_of_memory(e):
            raise
        _say(f"out of memory: {str(e).splitlines()[0]}", "use a smaller --batch or --length, or --dtype bfloat16")
    return 2


def _is_out_of_memory(error: RuntimeError) -> bool:
    """PyTorch has a class for a full GPU, and for a full host only these words."""
    return any(words in str(error) for words in ("can't allocate memory", "out of memory", "not enough memory"))


def _say(message: str, hint: str | None) -> None:
    err.print("[bold red]error:[/] ", end="")
    err.print(message, markup=False)
    if hint:
        err.print("[bold]hint:[/] ", end="")
        err.print(hint, markup=False)
