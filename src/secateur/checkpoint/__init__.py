"""Bytes on disk: open checkpoints lazily, stream tensors in and out, publish whole folders or none."""

from secateur.checkpoint.config import read_config, write_json
from secateur.checkpoint.files import require_space
from secateur.checkpoint.header import CODES, DTYPES, TensorInfo, read_header
from secateur.checkpoint.publish import publish
from secateur.checkpoint.store import TensorStore
from secateur.checkpoint.writer import Shard, TensorSpec, plan_shards, write_tensors

__all__ = [
    "CODES",
    "DTYPES",
    "Shard",
    "TensorInfo",
    "TensorSpec",
    "TensorStore",
    "plan_shards",
    "publish",
    "read_config",
    "read_header",
    "require_space",
    "write_json",
    "write_tensors",
]
