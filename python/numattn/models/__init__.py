"""Small NumPy models on numattn's public API.

They need the libraries safetensors and tokenizers; importing this module does not.
"""

from __future__ import annotations

from .decoders.generate import generate
from .decoders.gpt import Gpt
from .decoders.llama import Llama
from .decoders.sampling import Sampler
from .encoder.bert import Bert
from .files.installed import installed_folder, installed_translator
from .load import load
from .translator.seq2seq import Seq2Seq

__all__ = [
    "Bert",
    "Gpt",
    "Llama",
    "Sampler",
    "Seq2Seq",
    "generate",
    "installed_folder",
    "installed_translator",
    "load",
]
