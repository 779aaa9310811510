"""What is checked before the first step: does the pair fit?"""

from __future__ import annotations

from typing import Any

from secateur.checkpoint.hashing import FileHasher
from secateur.data import check_vocabulary, load_tokenizer
from secateur.errors import UsageError
from secateur.model import Model


def check_pair(student: Model, teacher: Model) -> None:
    """UsageError unless both read and write the same tokens."""
    mine, its = student.anatomy.sizes.get("v"), teacher.anatomy.sizes.get("v")
    if mine != its:
        raise UsageError(
            f"the student {student.source} has {mine} tokens in its vocabulary, the teacher {teacher.source} {its}",
            hint="distillation compares token by token: trim the teacher's vocabulary first, or train with --ce 1",
        )
    a, b = (load_tokenizer(m.folder).get_vocab() for m in (student, teacher))
    if a != b:
        other = sum(a.get(token) != i for token, i in b.items())
        raise UsageError(
            f"the tokenizers of {student.source} and {teacher.source} differ in {other} tokens",
            hint="student and teacher must share a tokenizer; the child's is copied from its parent by secateur prune",
        )


def usable_tokenizer(model: Model) -> Any:
    """The tokenizer of a checkpoint, checked against its embedding."""
    tokenizer = load_tokenizer(model.folder)
    check_vocabulary(tokenizer, model.anatomy.sizes["v"], model=model.source)
    return tokenizer


def digests(model: Model) -> dict[str, str]:
    """Weight file -> sha256."""
    with FileHasher(model.weights.files) as hasher:
        return hasher.digests()
