"""Plan, cut and repair. The package is also the verb: ``secateur.prune(model, plan, out)``.

Importing any module of this package puts the package itself under the name ``secateur.prune``, where users find the
function of the same name; being callable, it is that function.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _Verb(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from secateur.pruning import prune

        return prune(*args, **kwargs)


sys.modules[__name__].__class__ = _Verb
