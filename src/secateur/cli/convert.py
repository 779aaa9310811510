"""``secateur convert``: the same model in another standard class that can say more shapes."""

from __future__ import annotations

from typing import Annotated

import typer

from secateur.cli import options
from secateur.cli.common import human_count, out, parse_size

NAME = "convert"
HELP = """Rewrite a model as a member of another standard family, at equal logits, so that more shapes can be said.

Example (mamba2 stores its width as a whole multiple of hidden; nemotron_h does not):

    secateur convert ./mamba2 --to nemotron_h --out ./as-nemotron

    secateur prune ./as-nemotron --keep ssm_heads=72 --out ./child"""


def run(
    model: options.Checkpoint,
    to: Annotated[str, typer.Option(help="the family to convert to, as in nemotron_h")],
    save: options.Result,
    shard_size: Annotated[str, typer.Option(help="largest size of a weight file")] = "5GB",
    revision: Annotated[str | None, typer.Option(help="hub revision")] = None,
) -> None:
    from secateur.model import open_model
    from secateur.pruning.convert import convert, offer_to

    with open_model(model, revision=revision) as source:
        offer = offer_to(source, to)
        converted = convert(source, to, save, shard_bytes=parse_size(shard_size))
    out.print(
        f"wrote {save}: {human_count(converted.anatomy.count())} parameters ({offer.extra:+,}), {to}", soft_wrap=True
    )
    for limit in offer.conversion.limits:
        out.print(f"[yellow]note:[/] {limit}", soft_wrap=True)
