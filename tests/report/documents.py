"""Results documents as `secateur eval` writes them, made up."""

from __future__ import annotations

from typing import Any

PARENT = 1_000_000


def spread(x: float) -> dict[str, float]:
    return {"min": 0.9 * x, "median": x, "max": 1.1 * x}


def entry(
    name: str, share: float, loss: float, *, role: str = "child", speed: bool = True, **over: Any
) -> dict[str, Any]:
    """A model of ``share`` of the parent's parameters."""
    parameters = int(PARENT * share)
    speeds = {
        "prefill_tokens_per_s": spread(1000 / share), "prefill_ratio": spread(1 / share),
        "decode_tokens_per_s": spread(100 / share), "decode_ratio": spread(1 / share),
        "peak_bytes": spread(4e6 * share), "peak_ratio": spread(share), "threads": 1,
    }  # fmt: skip
    whole = {"loss": loss, "perplexity": 2.718**loss, "bits_per_byte": loss / 2.4, "tokens": 900, "bytes": 3000}
    return {
        "role": role, "name": name, "source": f"/models/{name}", "model_type": "nemotron_h",
        "config_sha256": f"c-{name}", "sha256": {"model.safetensors": f"w-{name}"},
        "shape": {"hidden": int(192 * share), "ffn": int(768 * share), "vocab": 4096, "layers": 11},
        "kinds": {"mlp": 5},
        "size": {
            "parameters": parameters, "non_embedding": parameters // 2, "bytes": 2 * parameters,
            "disk_bytes": 2 * parameters + 900, "cache_bytes": 50_000, "context": 4096,
        },
        "text": {"total": whole, "sources": [{"name": "held-out.txt", **whole}]},
        "agreement": None if role == "parent" else {
            "kl": 1 - share, "js": 0.1, "top1": share, "outside_mass": 0.0, "tokens": 900, "trimmed": False,
        },
        "why_no_agreement": "", "speed": speeds if speed else None, "samples": [f"{name} goes on"],
        "record": None, "healing": None, "importance": None, **over,
    }  # fmt: skip


def record() -> dict[str, Any]:
    """A prune of a model with three layers, then a distillation."""
    tensors: dict[str, Any] = {
        f"model.layers.{i}.mlp.up.weight": {"action": "cut", "shape": [384, 96]} for i in range(3)
    }
    tensors |= {
        f"model.layers.{i}.norm.weight": {"action": "cut+rescaled", "shape": [96], "factor": 1.1 + i / 10}
        for i in range(3)
    }
    tensors["model.mtp.weight"] = {"action": "left behind", "why": "no layout covers it"}
    cut = {
        "step": "prune", "versions": {"secateur": "0.1", "torch": "2.13"},
        "settings": {"score": "magnitude", "seed": 3},
        "parent": {"source": "/models/parent", "sha256": {"model.safetensors": "parent-digest"}},
        "shape": {"hidden": {"before": 192, "after": 96}},
        "audit": {"summary": {"cut": 3, "cut+rescaled": 3}, "tensors": tensors, "files": {"tokenizer.json": "carried"}},
    }  # fmt: skip
    audit = {"summary": {"trained": 7}, "files": {"config.json": "copied"}}
    return {"step": "distill", "settings": {"seed": 5}, "audit": audit, "before": cut}


def document(*models: dict[str, Any], text: str = "t-digest", window: int = 1024, speed: bool = True) -> dict[str, Any]:
    """Everything one evaluation writes."""
    measured = {"batch": 1, "prompt": 512, "new": 64, "rounds": 5, "threads": 0, "seed": 0}
    return {
        "secateur_eval": 1, "versions": {"secateur": "0.1", "torch": "2.13"},
        "settings": {
            "window": window, "stride": window, "limit": None, "batch": 8, "context": 4096, "prompts": 1,
            "sample_tokens": 64, "speed": measured if speed else None,
            "place": {"device": "cpu", "dtype": "float32", "fast_kernels": True},
        },
        "text": [{"name": "held-out.txt", "bytes": 3000, "sha256": text}],
        "prompts": [{"text": "Once there was", "truth": "a gardener"}], "models": list(models),
    }  # fmt: skip


def healing(steps: int = 120) -> list[dict[str, float]]:
    return [{"step": i, "tokens": 4096 * i, "loss": 3 / i + 0.5, "lr": 1e-3} for i in range(1, steps + 1)]


def importance(scopes: int = 3, criterion: str = "activation") -> dict[str, Any]:
    points = [{"rank": float(i), "score": 1 / i} for i in range(1, 41)]
    curves = [{"axis": "ffn", "scope": str(s), "units": 40, "points": points} for s in range(scopes)]
    return {"criterion": criterion, "curves": [*curves, {"axis": "hidden", "scope": "", "units": 40, "points": points}]}


def full() -> dict[str, Any]:
    """A parent and three children, one of them healed, with everything that can be shown."""
    return document(
        entry("parent", 1.0, 3.0, role="parent"),
        entry("large", 0.8, 3.2),
        entry("worse", 0.85, 3.6),
        entry("healed", 0.5, 3.3, record=record(), healing=healing(), importance=importance()),
    )


def search() -> dict[str, Any]:
    """A search with two stages; the first stage has three candidates, of which one is beaten by another."""
    stage = {"name": "zero-shot", "windows": [0, 1], "heal": 0, "repair": False}

    def point(text: str, params: float, kl: float | None, heal: int, front: bool) -> dict[str, Any]:
        return {
            "shape": {"keep": {}, "layers": []}, "text": text, "stage": "healed" if heal else "zero-shot", "heal": heal,
            "windows": 2, "kl": kl, "nll": 3.0, "costs": {"params": params, "latency": params / 1e6}, "front": front,
        }  # fmt: skip

    return {
        "secateur_search": 1, "versions": {}, "model": {"source": "/models/parent", "config_sha256": "c-parent"},
        "strategy": "evolutionary", "criterion": "contribution", "about": {}, "details": {}, "plan": {},
        "limits": [
            {"resource": "params", "amount": 600_000, "parent": PARENT},
            {"resource": "latency", "amount": 0.6, "parent": 1.0},
        ],
        "spent_seconds": 12.5, "measured": 6, "notes": ["all generations were made"],
        "agreements": [{"before": "zero-shot", "after": "healed", "tau": -1.0, "count": 2}],
        "winner": {
            "shape": {"keep": {}, "layers": []}, "text": "ffn=96", "stage": {**stage, "name": "healed", "heal": 4096},
            "costs": {"params": 590_000.0, "latency": 0.59}, "kl": 0.1, "nll": 3.0, "seconds": 1.0,
        },
        "points": [
            point("ffn=96", 590_000, 0.5, 0, True), point("ffn=80", 550_000, 0.6, 0, True),
            point("ffn=64", 595_000, 0.9, 0, False), point("ffn=32", 400_000, None, 0, False),
            point("ffn=96", 590_000, 0.1, 4096, True), point("ffn=80", 550_000, 0.2, 4096, True),
        ],
    }  # fmt: skip
