"""distill: a cut student, its parent and text in; a healed standard checkpoint out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from secateur.checkpoint import write_json
from secateur.checkpoint.files import disk_error
from secateur.checkpoint.hashing import FileHasher
from secateur.data import check_vocabulary, load_tokenizer
from secateur.errors import CheckpointError, UsageError
from secateur.evaluate.equality import load_strict
from secateur.kernels import fast
from secateur.model import Model, open_model
from secateur.prune.provenance import FILE, FORMAT, versions
from secateur.train import state
from secateur.train.cache import Layout, TeacherCache
from secateur.train.distribution import TopK, top_k
from secateur.train.export import export, gathered, on_disk
from secateur.train.log import METRICS, Log, read_metrics
from secateur.train.loop import Loop, Step, make_optimizer, share
from secateur.train.module import Distiller
from secateur.train.seams import layer_pairs, projections
from secateur.train.settings import Settings, TrainingError
from secateur.train.split import Split
from secateur.train.windows import NAME, Windows, write_windows
"""placeholder"""
