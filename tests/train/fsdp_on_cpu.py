"""The command line under accelerate's FSDP2 on processes without a GPU, which accelerate itself offers for GPUs only.

accelerate is told that gloo processes on the CPU are what it takes for several GPUs; sharding is then torch's own.
``--stop-after N`` first: fail after N steps. ``--die-after N``: the last process kills itself there.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

os.environ |= {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "ACCELERATE_TORCH_DEVICE": "cpu",
}

import accelerate
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from secateur.cli import run
from secateur.errors import SecateurError
from secateur.train import loop

stop = int(sys.argv.pop(2)) if sys.argv[1] in ("--stop-after", "--die-after") else 0
dies = bool(stop) and sys.argv.pop(1) == "--die-after"
PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
make, prepared, step = accelerate.Accelerator.__init__, loop.Loop.__init__, loop.Loop.take


def init(self: Any, *args: Any, cpu: bool = False, **kwargs: Any) -> None:
    make(self, *args, **kwargs)


def tell(self: Any, accelerator: Any, module: Any, *args: Any) -> None:
    prepared(self, accelerator, module, *args)
    sharded = all(isinstance(p, DTensor) for p in module.parameters())
    print(f"sharded: {'all' if sharded else 'not all'}")


def fail(self: Any, at: int) -> list[float]:
    if stop and at == stop and dies and os.environ["RANK"] != "0":
        os.kill(os.getpid(), signal.SIGKILL)
    if stop and at == stop and not dies:
        raise SecateurError("stopped on request of the test")
    return step(self, at)


accelerate.Accelerator.__init__ = init
loop.Loop.__init__, loop.Loop.take = tell, fail
sys.exit(run(sys.argv[1:]))
