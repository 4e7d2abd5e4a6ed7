"""Small NumPy models on numattn's public API.

They need the libraries safetensors and tokenizers; importing this module does not.
"""

from __future__ import annotations

from .decoders.beams import Beam, beam_search
from .decoders.drafts import ModelDraft, NgramDraft
from .decoders.generate import generate
from .decoders.gpt import Gpt
from .decoders.llama import Llama
from .decoders.prefix_cache import PrefixCache
from .decoders.sampling import Sampler
from .decoders.written import TextStream, Written
from .encoder.bert import Bert
from .files.installed import installed_folder, installed_translator
from .load import load
from .translator.seq2seq import Seq2Seq

__all__ = [
    "Beam",
    "Bert",
    "Gpt",
    "Llama",
    "ModelDraft",
    "NgramDraft",
    "PrefixCache",
    "Sampler",
    "Seq2Seq",
    "TextStream",
    "Written",
    "beam_search",
    "generate",
    "installed_folder",
    "installed_translator",
    "load",
]
