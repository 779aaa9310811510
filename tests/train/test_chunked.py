"""The loss in chunks against the same loss on whole logits: values, gradients, and what is never in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from secateur.train.distribution import log_probs
from secateur.train.losses import DIVERGENCES
from secateur.train.module import Distiller, next_tokens
from secateur.train.settings import Settings
from secateur.train.split import Split
from tests.contract.rows import ROWS

#: Tied heads, logits scaled, capped or divided, a bias in the head, a decoder inside the body, experts.
HEADS = ["mamba2@tied", "nemotron_h", "granitemoehybrid", "falcon_h1", "gemma3_text",
         "gpt2", "opt", "mixtral"]  # fmt: skip


def model(name: str, seed: int, **over: Any) -> Any:
    row = ROWS[name]
    torch.manual_seed(seed)
    config = AutoConfig.for_model(row.model_type or name.split("@")[0], **{"vocab_size": 97, **row.config, **over})
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float64, experts_implementation="eager").eval()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.05 * torch.randn(p.shape, dtype=p.dtype))
    return made


def plain(student: Any, teacher: Any, ids: Tensor, settings: Settings) -> Tensor:
    """The same loss from whole logits."""
    mine = student(ids, use_cache=False).logits.flatten(0, 1)
    with torch.no_grad():
        its = teacher(ids, use_cache=False).logits.flatten(0, 1)
    t = settings.temperature
    apart = DIVERGENCES[settings.loss](log_probs(mine, t), log_probs(its, t)).mean() * t**2
    ce = torch.nn.functional.cross_entropy(mine.double(), next_tokens(ids))
    return settings.ce * ce + (1 - settings.ce) * apart


@pytest.mark.parametrize("name", ROWS)
def test_head_on_given_states_is_the_model(name: str) -> None:
    made, ids = model(name, 0), torch.randint(97, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        split = Split(made)
        states, depth = split.hidden(ids, layers=True)
        states = states.flatten(0, 1)
        found = torch.cat([split.logits(states[:5]), split.logits(states[5:])])
        assert torch.equal(found.view(2, 9, -1), made(ids, use_cache=False).logits)
    assert len(depth) == made.config.num_hidden_layers + 1


@pytest.mark.parametrize("name", HEADS)
def test_value_and_every_gradient(name: str) -> None:
    settings = Settings(tokens=10**4, chunk=7, temperature=1.7, ce=0.3)
    student, teacher = model(name, 0), model(name, 1)
    ids = torch.randint(97, (2, 9), generator=torch.Generator().manual_seed(0))
    want = plain(student, teacher, ids, settings)
    want.backward()
    gradients = {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
    student.zero_grad()
    total, _ = Distiller(student, teacher, settings)(ids)
    (3 * total).backward()
    assert total.item() == pytest.approx(want.item(), rel=1e-6)
    for n, p in student.named_parameters():
        if n in gradients:
            want_grad = 3 * gradients[n]
            # norms compute in float32 inside, so single entries carry its rounding
            assert (p.grad - want_grad).norm() <= 1e-6 * want_grad.norm() + 1e-12, n
    assert len(gradients) > 5


@pytest.mark.parametrize("loss", DIVERGENCES)
def test_parts_and_values_without_gradients(loss: str) -> None:
    settings = Settings(tokens=10**4, chunk=5, loss=loss)
    student, teacher = model("llama", 0), model("llama", 1)
    ids = torch.randint(97, (2, 9))
    module = Distiller(student, teacher, settings)
    with torch.no_grad():
        total, parts = module(ids)
    assert total.item() == pytest.approx(plain(student, teacher, ids, settings).item(), rel=1e-6)
    assert parts[0].item() == pytest.approx(total.item(), rel=1e-6)
    logits = student(ids, use_cache=False).logits.flatten(0, 1)
    assert parts[1].item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, next_tokens(ids)).item(), rel=1e-6
    )


class Largest(TorchDispatchMode):
    """Remembers the largest tensor any operation put out."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor))])
        return out


def test_logits_of_all_tokens_never_exist() -> None:
    student, teacher = (model("llama", s, vocab_size=5000) for s in (0, 1))
    ids = torch.randint(5000, (4, 32))
    found = {}
    for chunk in (16, 128):
        with Largest() as seen:
            Distiller(student, teacher, Settings(tokens=10**4, chunk=chunk))(ids)[0].backward()
        found[chunk] = seen.numel
    head = student.get_output_embeddings().weight.numel()
    assert found[16] <= max(16 * 5000, head) < 128 * 5000 <= found[128]


def test_bf16_is_near() -> None:
    student, teacher = model("llama", 0).float(), model("llama", 1).float()
    module, ids = Distiller(student, teacher, Settings(tokens=10**4, chunk=7, ce=0.5)), torch.randint(97, (2, 9))
    wide = module(ids)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = module(ids)[0]
    narrow.backward()
    assert narrow.item() == pytest.approx(wide.item(), rel=0.03) and narrow.item() != wide.item()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in student.parameters())
