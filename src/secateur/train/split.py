"""A causal language model as two functions: token ids -> hidden states -> logits.

Logits of a whole batch are the largest tensor of training (batch x time x vocabulary). To compute them a few tokens at
a time, the model's own ``forward`` runs with its body replaced by given hidden states: whatever it does around its head
(scaling, soft caps, biases) is its own code, for every family.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Split:
    """The two halves of a transformers model with a language-modelling head; holds a reference, owns nothing."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.body = model.get_decoder()
        path = next(name for name, module in model.named_modules() if module is self.body)
        above, _, self._name = path.rpartition(".")
        self._above = model.get_submodule(above)
        self._output: Any = None

    def hidden(self, ids: Tensor, *, layers: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Final hidden states (b, t, d) of ``ids`` (b, t), and with ``layers`` those of every depth: the embedding's,
        then each layer's output."""
        self._output = self.body(input_ids=ids, use_cache=False, output_hidden_states=layers, return_dict=True)
        return self._output.last_hidden_state, tuple(self._output.hidden_states or ()) if layers else ()

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (n, v) of hidden states (n, d), in the dtype the model computes them in. ``hidden()`` comes first."""
        given = copy.copy(self._output)
        given.last_hidden_state = hidden[None]
        self._above._modules[self._name] = _Given(self.body, given)
        try:
            ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
            out: Tensor = self.model.forward(input_ids=ids, use_cache=False, return_dict=True).logits[0]
            return out
        finally:
            self._above._modules[self._name] = self.body

    def forget(self) -> None:
        """Drop the last output, which keeps activations alive."""
        self._output = None

    def head(self) -> list[Tensor]:
        """Parameters that the second half may read, each once: those outside the body and those of the head (which may
        be tied to the embedding). Looked up anew each time, for FSDP replaces parameters while it computes."""
        found: dict[int, Tensor] = {}
        inside = set(self.body.modules())
        modules = [m for m in self.model.modules() if m not in inside]
        for module in [*modules, self.model.get_output_embeddings()]:
            for name in list(module._parameters):
                parameter = getattr(module, name)
                if parameter is not None and parameter.requires_grad:
                    found[id(parameter)] = parameter
        return list(found.values())

    @property
    def vocab_size(self) -> int:
        """Rows of the head."""
        return int(self.model.get_output_embeddings().weight.shape[0])


class _Given(nn.Module):
    """In the place of the body: returns a given output; everything else is the body's."""

    def __init__(self, body: nn.Module, output: Any) -> None:
        super().__init__()
        self.__dict__["_body"], self.__dict__["_output"] = body, output

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.__dict__["_output"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_body"], name)
