"""Bytes on disk: open checkpoints lazily, stream tensors in and out, publish whole folders or none."""

from secateur.checkpoint.buffers import BufferPool
from secateur.checkpoint.config import read_config, write_json
from secateur.checkpoint.files import require_space
from secateur.checkpoint.hashing import FileHasher
from secateur.checkpoint.header import CODES, DTYPES, TensorInfo, read_header
from secateur.checkpoint.hub import resolve
from secateur.checkpoint.passengers import Passenger, copy_passengers, list_passengers
from secateur.checkpoint.publish import publish, scratch
from secateur.checkpoint.store import TensorStore
from secateur.checkpoint.writer import Shard, TensorSpec, plan_shards, write_tensors

__all__ = [
    "CODES",
    "DTYPES",
    "BufferPool",
    "FileHasher",
    "Passenger",
    "Shard",
    "TensorInfo",
    "TensorSpec",
    "TensorStore",
    "copy_passengers",
    "list_passengers",
    "plan_shards",
    "publish",
    "read_config",
    "read_header",
    "require_space",
    "resolve",
    "scratch",
    "write_json",
    "write_tensors",
]
