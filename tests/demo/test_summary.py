"""The closing table and sentences: right arithmetic, nothing that was not measured."""

from __future__ import annotations

from typing import Any

from secateur.demo.summary import sentences, table


def model(name: str, bits: float, kl: float | None, parameters: int, prefill: float | None = None) -> dict[str, Any]:
    def spread(x: float) -> dict[str, float]:
        return {"min": 0.9 * x, "median": x, "max": 1.1 * x}

    rates = ("prefill_tokens_per_s", "decode_tokens_per_s", "prefill_ratio", "decode_ratio", "peak_ratio")
    return {
        "name": name,
        "text": {"total": {"loss": 2 * bits, "bits_per_byte": bits}},
        "agreement": None if kl is None else {"kl": kl, "top1": 1 - kl},
        "size": {"parameters": parameters + 50, "non_embedding": parameters, "disk_bytes": 2 * parameters},
        "speed": None if prefill is None else {key: spread(prefill) for key in rates},
    }


def document(speed: bool = True, healed: float = 1.6) -> dict[str, Any]:
    fast = (1.0, 1.5) if speed else (None, None)
    return {
        "models": [
            model("parent", 1.5, None, 1000, fast[0]),
            model("cut", 1.9, 0.4, 500, fast[1]),
            model("repaired", 1.8, 0.3, 500, fast[1]),
            model("healed", healed, 0.1, 500, fast[1]),
        ]
    }


def test_table() -> None:
    names, rows = table(document())
    assert names == ("parent", "cut", "repaired", "healed")
    shown = {row.label.strip(): row.cells for row in rows if row.label.strip() != "of the parent's"}
    assert shown["bits per byte"] == ("1.5000", "1.9000", "1.8000", "1.6000")
    assert shown["against the parent"] == ("", "+0.4000", "+0.3000", "+0.1000")
    assert shown["KL to the parent, nats"] == ("", "0.4000", "0.3000", "0.1000")
    assert shown["parameters"] == ("1,050", "550", "550", "550")
    ratios = [row.cells for row in rows if row.label.strip() == "of the parent's"]
    assert ratios == [("100.0%", *["50.0%"] * 3), ("1.00x", *["1.50x"] * 3), ("1.00x", *["1.50x"] * 3)]


def test_sentences() -> None:
    said = " ".join(sentences(document()))
    for piece in ("+0.400 bits per byte", "+0.100 (25% of", "+0.200 (50% of", "+0.100", "90.0%", "50.0%", "1.50x"):
        assert piece in said


def test_a_loss_is_called_one() -> None:
    assert "-0.100 (-25% of" in " ".join(sentences(document(healed=1.9)))


def test_what_was_not_measured_is_left_out() -> None:
    _, rows = table(document(speed=False))
    assert not any("tokens/s" in row.label or "memory" in row.label for row in rows)
    assert "speed" not in " ".join(sentences(document(speed=False)))
