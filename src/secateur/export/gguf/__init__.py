"""GGUF files for llama.cpp: one declaration per family, one writer."""

from secateur.export.gguf.families import GGUF
from secateur.export.gguf.types import TYPES
from secateur.export.gguf.write import Written, write_gguf

__all__ = ["GGUF", "TYPES", "Written", "write_gguf"]
