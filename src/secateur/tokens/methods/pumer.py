"""PuMer (arXiv 2305.17530): token merging by bipartite matching, as in ToMe (arXiv 2210.09461), similarity alone.

    A and B      every second token each, the last one in B
    removed      the r tokens of A most similar to their best partner in B, merged into it in both branches

PuMer also prunes image tokens by the text of a question; a model of text alone has no such question. Its merged tokens
are means, as here.
"""

from __future__ import annotations

import torch

from secateur.tokens.choice import Choice, Options, Row, best_partner


def choose(row: Row, remove: int, options: Options) -> Choice:
    """Alternate tokens, most similar pairs, merged."""
    n = len(row.branch)
    place = torch.arange(n, device=row.branch.device)
    in_a = (n - 1 - place) % 2 == 1
    a, b = place[in_a], place[~in_a]
    similarity, partner = best_partner(row.branch, a, b, options.causal)
    closest = torch.argsort(similarity, descending=True, stable=True)[:remove]
    merged = torch.ones(remove, dtype=torch.bool, device=place.device)
    return Choice(a[closest], partner[closest], merged, merged)
