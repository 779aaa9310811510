"""Writing a teacher's knowledge to disk, so that it is run once for any number of students."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from secateur.errors import CheckpointError
from secateur.kernels import fast
from secateur.train.cache import Layout, TeacherCache
from secateur.train.distribution import TopK, top_k
from secateur.train.settings import Settings
from secateur.train.split import Split
from secateur.train.windows import Windows


def open_cache(folder: Path, settings: Settings, windows: Windows, vocab: int, sums: Mapping[str, str]) -> TeacherCache:
    """The cache of this teacher (sha256 of its files in ``sums``) for these windows, whether filled or not."""
    assert settings.top_k is not None
    identity = hashlib.sha256("".join(f"{name} {sums[name]}\n" for name in sorted(sums)).encode()).hexdigest()
    layout = Layout(
        windows.count,
        windows.length,
        min(settings.top_k, vocab),
        vocab,
        settings.temperature,
        identity,
        windows.sha256(),
    )
    return TeacherCache(folder, layout)


def fill(
    accelerator: Any,
    cache: TeacherCache,
    load: Callable[[], Any],
    windows: Windows,
    settings: Settings,
    told: Callable[[int, int], None],
) -> None:
    """Compute what ``cache`` lacks, shards dealt to processes in turn. ``load`` gives the teacher's model;
    ``told(done, total)`` hears of this process's shards."""
    missing = cache.missing()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process and missing:
        cache.prepare()
    accelerator.wait_for_everyone()
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    if mine:
        model = load().to(accelerator.device).eval()
        with fast(model), torch.no_grad():
            ask = _asker(accelerator, Split(model), cache.layout.k, windows, settings)
            for done, _ in enumerate(cache.fill(mine, ask), 1):
                told(done, len(mine))
    accelerator.wait_for_everyone()
    if cache.missing():
        raise CheckpointError(
            f"{cache.folder}: {len(cache.missing())} shards are missing after filling it",
            hint="processes on several machines need a folder they share",
        )


def _asker(accelerator: Any, split: Split, k: int, windows: Windows, settings: Settings) -> Callable[[int, int], TopK]:
    def ask(start: int, stop: int) -> TopK:
        found = []
        for at in range(start, stop, settings.micro_batch):
            ids = windows.rows(at, min(at + settings.micro_batch, stop)).to(accelerator.device)
            with accelerator.autocast():
                states = split.hidden(ids)[0].flatten(0, 1)
                for piece in torch.split(states, settings.chunk):
                    found.append(top_k(split.logits(piece), k, settings.temperature).to(torch.device("cpu")))
            split.forget()
        return TopK(*(torch.cat([getattr(t, name) for t in found]) for name in ("ids", "logp", "tail")))

    return ask
