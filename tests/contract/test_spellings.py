"""Files of one architecture carry different names, depending on who wrote them. All must be read and cut alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur.pruning.cut import Cut

from .harness import Parent, distance, load, logits, open_parent, write

#: row -> (old, new) pieces of tensor names: what transformers writes -> what published files hold
PUBLISHED = {
    "kimi_linear": [(f"layers.0.block_sparse_moe.{m}_proj", f"layers.0.mlp.{m}_proj") for m in ("gate", "up", "down")],
    "olmo_hybrid": [(f"layers.{i}.feedforward_layer_norm", f"layers.{i}.post_attention_layernorm") for i in (1, 3)],
    "gpt2": [("transformer.", "")],
    "opt@same_width": [("model.decoder.", "decoder.")],
    "qwen3_5_text": [("model.", "model.language_model.")],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_names_are_read_and_cut_like_the_saved_ones(
    name: str, parents: dict[str, Parent], tmp_path: Path
) -> None:
    saved = parents[name]
    tensors = {}
    for key, t in saved.tensors.items():
        for old, new in PUBLISHED[name]:
            key = key.replace(old, new, 1)
        tensors[key] = t
    assert tensors.keys() != saved.tensors.keys()
    published = open_parent(name, write(tmp_path / "published", saved.anatomy.raw, tensors))
    assert not published.anatomy.check_index({n: tuple(t.shape) for n, t in tensors.items()})
    wanted = {"ffn": 36}
    got = []
    for parent in (saved, published):
        cut = Cut(parent.anatomy, parent.keep(wanted))
        child = {t.name: cut.apply(t, parent.tensors[t.decl.name]) for t in cut.targets() if t.name}
        got.append(logits(load(write(tmp_path / f"child{len(got)}", cut.config, child))))
    assert distance(*got) == 0.0
