"""Small NumPy models on numattn's public API.

They need the libraries safetensors and tokenizers; importing this module does not.
"""

from __future__ import annotations

from .beams import Beam
from .decoders.beams import beam_search
from .decoders.drafts import ModelDraft, NgramDraft
from .decoders.generate import generate
from .decoders.gpt import Gpt
from .decoders.llama import Llama
from .decoders.sampling import Sampler
from .encoder.bert import Bert
from .encoder_decoder.bart import Bart
from .encoder_decoder.t5 import T5
from .encoder_decoder.whisper import Whisper
from .files.installed import installed_folder, installed_translator
from .load import load
from .translator.seq2seq import Seq2Seq

__all__ = [
    "T5",
    "Bart",
    "Beam",
    "Bert",
    "Gpt",
    "Llama",
    "ModelDraft",
    "NgramDraft",
    "Sampler",
    "Seq2Seq",
    "Whisper",
    "beam_search",
    "generate",
    "installed_folder",
    "installed_translator",
    "load",
]
