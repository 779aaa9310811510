"""Scores as a JSON document that a report can draw: one curve per axis and scope."""

from __future__ import annotations

from typing import Any

import numpy as np

from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.axes import PUBLIC
from secateur.importance.base import Scores

#: The document's file in a checkpoint's folder.
IMPORTANCE = "importance.json"
#: More units than this in a curve are given as evenly spaced ranks.
MOST = 4096


def document(anatomy: Anatomy, criterion: str, scores: Scores) -> dict[str, Any]:
    """``{"secateur_importance": 1, "criterion", "curves": [{"axis", "scope", "scores": [...]}]}``, scores falling.

    ``axis`` is the public name; symbols that only follow another axis are left out.
    """
    live = {a.symbol: a.name for a in PUBLIC.values() if a.symbols and a.symbol in anatomy.live}
    curves = [
        {"axis": live[symbol], "scope": scope, "scores": [float(f"{v:.6g}") for v in _falling(array)]}
        for (symbol, scope), array in scores.items()
        if symbol in live and array.size
    ]
    return {"secateur_importance": 1, "criterion": criterion, "curves": curves}


def _falling(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    ranked = np.sort(array, axis=None)[::-1]
    return ranked if len(ranked) <= MOST else ranked[np.linspace(0, len(ranked) - 1, MOST).round().astype(int)]
