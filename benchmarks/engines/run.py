"""The driver; see the package."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common.tables import RESULTS
from benchmarks.common.units import append

from secateur.data import load_tokenizer
from secateur.evaluation.load import Place, loaded
from secateur.export.gguf import write_gguf
from secateur.model import open_model

FILE = RESULTS / "engines.jsonl"
TOKENS, PROMPT, NEW, ROUNDS = 256, 256, 64, 7


@dataclass(frozen=True)
class Entry:
    """One file: ``label``, the checkpoint it is written from, the type of its matrices."""

    label: str
    folder: Path
    type: str

    @classmethod
    def of(cls, text: str) -> Entry:
        label, _, place = text.rpartition("=")
        folder, _, kind = place.rpartition(":")
        return cls(label, Path(folder), kind)


def main() -> None:
    p = argparse.ArgumentParser(prog="python -m benchmarks.engines.run")
    p.add_argument("--name", required=True)
    p.add_argument("--parent", required=True, help="FOLDER:TYPE")
    p.add_argument("--child", action="append", default=[], help="LABEL=FOLDER:TYPE")
    p.add_argument("--held-out", type=Path, required=True)
    p.add_argument("--work", type=Path, required=True)
    p.add_argument("--rounds", type=int, default=ROUNDS)
    told = p.parse_args()
    torch.set_num_threads(1)
    told.work.mkdir(parents=True, exist_ok=True)
    parent = Entry.of(f"parent={told.parent}")
    ids = tokens(parent.folder, told.held_out)
    base = engine(written(parent, told.work))
    rows = [(parent, base)] + [(c, engine(written(c, told.work))) for c in map(Entry.of, told.child)]
    for entry, llama in rows:
        found = {**agreement(entry, llama, ids), **pairs(base, llama, ids, told.rounds)}
        nbytes = (told.work / f"{entry.label}.gguf").stat().st_size
        line = {"parent": told.name, "label": entry.label, "type": entry.type, "bytes": nbytes, **found}
        print(json.dumps(line), flush=True)
        append(FILE, line)


def written(entry: Entry, work: Path) -> Path:
    """The GGUF file of an entry."""
    path = work / f"{entry.label}.gguf"
    with open_model(entry.folder) as model:
        write_gguf(model, path, type=entry.type, overwrite=True)
    return path


def engine(path: Path) -> Any:
    """llama.cpp on one thread, its cache in float32."""
    import llama_cpp

    return llama_cpp.Llama(
        str(path), n_ctx=PROMPT + NEW, n_batch=PROMPT, n_threads=1, n_threads_batch=1, logits_all=True, type_k=0,
        type_v=0, verbose=False,
    )  # fmt: skip


def tokens(folder: Path, text: Path) -> list[int]:
    """The first tokens of the text."""
    piece = text.read_text(encoding="utf-8")[:20_000]
    ids: list[int] = load_tokenizer(folder).encode(piece, add_special_tokens=False)
    return ids[:TOKENS]


@torch.no_grad()
def agreement(entry: Entry, llama: Any, ids: list[int]) -> dict[str, float]:
    """KL from transformers on the same checkpoint (nats per token), equal best tokens, loss in llama.cpp."""
    with loaded(entry.folder, Place("cpu", "float32")) as model:
        want = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
    llama.reset()
    llama.eval(ids)
    got = torch.log_softmax(torch.from_numpy(np.array(llama.scores[: len(ids)])).double(), -1)
    loss = -got[:-1].gather(1, torch.tensor(ids[1:])[:, None]).mean()
    return {
        "kl": float((want.exp() * (want - got)).sum(-1).mean()),
        "top1": float((want.argmax(-1) == got.argmax(-1)).double().mean()),
        "largest": float((want - got).abs().max()),
        "loss": float(loss),
    }


def pairs(base: Any, child: Any, ids: list[int], rounds: int) -> dict[str, Any]:
    """Prefill and decode in tokens per second, medians, and the median ratio of pairs to the parent."""
    speeds: dict[str, list[tuple[float, float]]] = {"prefill": [], "decode": []}
    for i in range(rounds + 1):  # the first warms up
        found = [timed(llama, ids) for llama in ((base, child) if i % 2 else (child, base))]
        first, second = found if i % 2 else found[::-1]
        if i:
            speeds["prefill"].append((first[0], second[0]))
            speeds["decode"].append((first[1], second[1]))
    told: dict[str, Any] = {"rounds": rounds}
    for what, each in speeds.items():
        told[what] = statistics.median(c for _, c in each)
        told[f"{what}_ratio"] = statistics.median(c / p for p, c in each)
    return told


def timed(llama: Any, ids: list[int]) -> tuple[float, float]:
    """(prefill, decode) tokens per second of processor time: other work on the machine does not count."""
    llama.reset()
    start = time.process_time()
    llama.eval(ids[:PROMPT])
    middle = time.process_time()
    for i in ids[:NEW]:
        llama.eval([i])
    end = time.process_time()
    return min(PROMPT, len(ids)) / (middle - start), NEW / (end - middle)


if __name__ == "__main__":
    main()
