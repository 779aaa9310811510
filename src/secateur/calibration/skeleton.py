"""A transformers model without weights, whose blocks are filled from disk one at a time.

transformers' own loader does the filling, so renamed and fused modules (experts, split convolutions) are its business:
each call hands it the on-disk tensors of one layer and gets a module that computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from secateur.anatomy import layout as lo
from secateur.calibration.ahead import Ahead
from secateur.calibration.rows import Rows, read_rows
from secateur.errors import CheckpointError
from secateur.model import Model


class Skeleton:
    """``blocks[i]`` is decoder layer i; ``load(i)`` fills it, ``free(i)`` empties it. Parameters live on ``meta``.

    ``ahead(i)`` begins to read the tensors of layer i on a thread, for the ``load(i)`` that follows. ``changed``:
    tensors by on-disk name that are loaded instead of those on disk.
    """

    def __init__(
        self,
        model: Model,
        *,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        changed: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        from accelerate import init_empty_weights
        from transformers import AutoModelForCausalLM

        self.source, self.dtype, self.device = model, dtype, torch.device(device)
        self.changed: Mapping[str, torch.Tensor] = {} if changed is None else changed
        config = model.anatomy.config.object
        # grouped matrix kernels know no float64
        experts = {"experts_implementation": "eager"} if dtype == torch.float64 else {}
        with quiet(), init_empty_weights(include_buffers=False):
            self.model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, **experts)
        self.model.eval()
        _move_buffers(self.model, self.device)
        self.blocks = _find_blocks(self.model, model.anatomy.n_layers)
        self._names = _names_by_layer(model)
        shared = model.anatomy.family.shared
        self._shared = {} if shared is None else _shared_names(model, shared.prefix)
        self._ahead = Ahead(model.read, self.device)
        self._table, self._head = _tables(model)
        self._rows, self._headed = Rows(self.model.get_input_embeddings()), False

    def load_stem(self, tokens: torch.Tensor) -> None:
        """Fill what stands outside the layers but the head; of the embedding the rows of ``tokens``."""
        self._fill(n for n in self._names[None] if n not in (self._table, *self._head))
        self.look_up(tokens)

    def look_up(self, tokens: torch.Tensor) -> None:
        """Hold the rows of ``tokens`` (ids, any shape) in the embedding, and no others."""
        ids, name = torch.unique(tokens).cpu(), self._table
        rows = self.changed[name][ids] if name in self.changed else read_rows(self.source, name, ids)
        self._rows.load(rows.to(self.device, self.dtype), ids)

    def load_head(self) -> None:
        """Fill the head, which is the whole embedding where the two are tied; once."""
        if self._headed:
            return
        self._headed = True
        if not self._head:
            self._rows.restore()
        self._fill(self._head or [self._table])
        self.model.tie_weights()

    def ahead(self, layer: int) -> None:
        """Begin to read the tensors of ``layer``, if there is such a layer."""
        if layer < len(self.blocks):
            self._ahead.start(layer, self._of(layer))

    def load(self, layer: int) -> nn.Module:
        """Fill decoder layer ``layer`` and return it."""
        owner = self._owner(layer)
        self._fill(self._of(layer), self._ahead.take(layer))
        if owner is not None:
            self.model.tie_weights()
        block: nn.Module = self.blocks[layer]
        empty = [n for n, p in block.named_parameters() if p.is_meta]
        if empty:
            raise CheckpointError(f"layer {layer}: nothing on disk fills {', '.join(empty[:3])}")
        return block

    def free(self, layer: int) -> None:
        """Give back a layer's memory, and that of the shared block it used."""
        owner = self._owner(layer)
        for block in {layer, layer if owner is None else owner}:
            for module in self.blocks[block].modules():
                for name, p in list(module.named_parameters(recurse=False)):
                    setattr(module, name, nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False))

    def _of(self, layer: int) -> list[str]:
        """Tensors of a layer, and of the shared block it uses."""
        owner = self._owner(layer)
        return [*self._names[layer], *(() if owner is None else self._shared[owner])]

    def _owner(self, layer: int) -> int | None:
        """The layer that stores the shared block ``layer`` uses, if it uses another's."""
        anatomy = self.source.anatomy
        if layer not in anatomy.shared_users or anatomy.owner(anatomy.block_of(layer)) == layer:
            return None
        return anatomy.owner(anatomy.block_of(layer))

    def _fill(self, names: Iterable[str], read: Mapping[str, torch.Tensor] | None = None) -> None:
        """Put tensors into the model: changed ones, those of ``read``, all others from disk."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig

        given = {**(read or {}), **self.changed}
        state = {n: given[n] if n in given else self.source.read(n) for n in names}
        read = given = {}
        config = LoadStateDictConfig(
            dtype=self.dtype,
            device_map={"": str(self.device)},
            weight_mapping=get_model_conversion_mapping(self.model),
        )
        with quiet(), torch.no_grad():
            info, _ = convert_and_load_state_dict_in_model(self.model, state, config)
        problems = [*info.unexpected_keys, *info.mismatched_keys, *info.error_msgs, *info.conversion_errors]
        if problems:
            raise CheckpointError(f"transformers cannot place these tensors: {', '.join(map(str, problems[:3]))}")


def _tables(model: Model) -> tuple[str, list[str]]:
    """(the embedding, the head's tensors; none where they are tied), by on-disk name."""
    family, outside = model.anatomy.family, [d for d in model.anatomy.tensors.values() if d.layer is None]
    head = [d.name for d in outside if d.key in family.head]
    table = [d.name for d in outside if d.name not in head and d.layout.dims[0] == lo.Axis("v")]
    if len(table) != 1:
        raise CheckpointError(f"{model.source}: expected one embedding by token, found {', '.join(table) or 'none'}")
    return table[0], head


def _move_buffers(model: nn.Module, device: torch.device) -> None:
    """Buffers (rotary frequencies) are made on the CPU; they compute where the weights do."""
    for module in model.modules() if device.type != "cpu" else ():
        for name, buffer in module.named_buffers(recurse=False):
            if not buffer.is_meta:
                setattr(module, name, buffer.to(device))


def _names_by_layer(model: Model) -> dict[int | None, list[str]]:
    names: dict[int | None, list[str]] = {None: []}
    for decl in model.anatomy.tensors.values():
        names.setdefault(decl.layer, []).append(decl.name)
    return names


def _shared_names(model: Model, prefix: str) -> dict[int, list[str]]:
    """Owner layer -> the tensors of the shared block stored there."""
    names: dict[int, list[str]] = {}
    for decl in model.anatomy.tensors.values():
        if decl.layer is not None and decl.pattern.startswith(prefix):
            names.setdefault(decl.layer, []).append(decl.name)
    return names


def _find_blocks(model: nn.Module, count: int) -> nn.ModuleList:
    """The decoder layers: the first module list of that length (its name differs between families)."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise CheckpointError(f"{type(model).__name__} holds no list of {count} layers")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers without progress bars and advice for a while: the walker has its own."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
