"""One model in a process of its own: loads it, then measures one turn per line it reads.

Line in, line out, JSON both ways. First line: what to load. Every further line asks for a turn. Run by
:mod:`secateur.evaluation.speed`.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch

from secateur.errors import SecateurError
from secateur.evaluation.decode import prefill, step
from secateur.evaluation.load import Place, loaded
from secateur.tokens.runtime import reduce_tokens
from secateur.tokens.settings import TokenReduction

_STATUS = Path("/proc/self/status")


def main() -> None:
    """Serve turns until the input ends. An error the user can mend goes out as a line; others end the process."""
    replies = sys.stdout
    sys.stdout = sys.stderr  # libraries print what they like; replies stay clean
    job = json.loads(sys.stdin.readline())
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    place = Place(job["device"], job["dtype"], job["fast"]).resolved()
    try:
        _import_family(job["folder"])
        before = _resident()
        with loaded(Path(job["folder"]), place) as model, _reduced(model, job.get("reduction")):
            _reply(replies, {"ready": True, "threads": torch.get_num_threads()})
            for _ in sys.stdin:
                _reply(replies, _turn(model, job, before))
    except SecateurError as problem:
        _reply(replies, {"error": problem.message, "hint": problem.hint})


def _reduced(model: Any, reduction: dict[str, Any] | None) -> contextlib.AbstractContextManager[Any]:
    if reduction is None:
        return contextlib.nullcontext()
    return reduce_tokens(model, TokenReduction.from_json(reduction))


def _reply(stream: Any, value: dict[str, Any]) -> None:
    stream.write(json.dumps(value) + "\n")
    stream.flush()


def _import_family(folder: str) -> None:
    """Import the model's code before memory is measured: a model without storage takes none."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))


def _turn(model: Any, job: dict[str, Any], before: int | None) -> dict[str, Any]:
    """Seconds of one prefill and of ``new`` decode steps, and the most memory held meanwhile, in bytes."""
    generator = torch.Generator().manual_seed(job["seed"])
    ids = torch.randint(job["vocab"], (job["batch"], job["prompt"]), generator=generator).to(model.device)
    _reset_peak(model.device)
    start = _now(model.device)
    token, out = prefill(model, ids)
    middle = _now(model.device)
    for _ in range(job["new"]):
        token, out = step(model, token, out)
    end = _now(model.device)
    return {"prefill_s": middle - start, "decode_s": end - middle, "peak_bytes": _peak(model.device, before)}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not allowed: _peak then says that there is no answer


def _peak(device: torch.device, before: int | None) -> int | None:
    """On a GPU: bytes allocated. On Linux: resident bytes above those before loading. Elsewhere: None."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = _status("VmHWM")
    return None if peak is None or before is None else max(0, peak - before)


def _resident() -> int | None:
    return _status("VmRSS")


def _status(field: str) -> int | None:
    if not _STATUS.exists():
        return None
    match = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else None


if __name__ == "__main__":
    main()
