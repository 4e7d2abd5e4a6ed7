"""Small NumPy models on numattn's public API.

They need the libraries safetensors and tokenizers; importing this module does not.
"""

from __future__ import annotations

from .bert import Bert
from .generate import generate
from .gpt import Gpt
from .installed import installed_folder, installed_translator
from .llama import Llama
from .sampling import Sampler
from .seq2seq import Seq2Seq

__all__ = [
    "Bert",
    "Gpt",
    "Llama",
    "Sampler",
    "Seq2Seq",
    "generate",
    "installed_folder",
    "installed_translator",
]
