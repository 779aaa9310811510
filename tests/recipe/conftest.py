from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.cli.models import CORPUS, SPECIAL, build, train_tokenizer

RECIPE = """\
work: out
inputs:
  parent: ./parent
  books: [text/]
  heldout: heldout.txt
steps:
  - calibrate: {model: parent, text: books, samples: 8, length: 16}
  - plan: {model: parent, params: 60%}
  - prune:
      model: parent
      plan: plan
      stats: calibrate
      score: activation
  - repair: {child: prune, parent: parent, text: books, samples: 16, length: 16, batch: 4}
  - eval: {models: [prune, repair], parent: parent, text: heldout, window: 32}
"""


@pytest.fixture(scope="session")
def _source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama with a tokenizer, and text for it."""
    base = tmp_path_factory.mktemp("source")
    tokenizer = train_tokenizer()
    special = {f"{n}_token_id": tokenizer.convert_tokens_to_ids(t) for n, t in SPECIAL.items()}
    build("llama", base / "parent", over={"vocab_size": len(tokenizer), "num_hidden_layers": 2, **special})
    tokenizer.save_pretrained(base / "parent")
    words = " ".join(CORPUS).split()
    draw = random.Random(0)
    (base / "text").mkdir()
    (base / "text" / "a.txt").write_text("\n\n".join(" ".join(draw.choices(words, k=20)) for _ in range(120)))
    (base / "heldout.txt").write_text(" ".join(draw.choices(words, k=60)))
    return base


@pytest.fixture
def place(_source: Path, tmp_path: Path) -> Path:
    """A folder with the model, its texts and ``recipe.yaml``."""
    shutil.copytree(_source, tmp_path / "place")
    (tmp_path / "place" / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "place"
