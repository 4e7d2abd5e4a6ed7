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
from .encoder.albert import Albert
from .encoder.answerer import QuestionAnswerer
from .encoder.bert import Bert
from .encoder.classifier import SequenceClassifier
from .encoder.distilbert import DistilBert
from .encoder.electra import Electra
from .encoder.gte import Gte
from .encoder.modernbert import ModernBert
from .encoder.mpnet import MPNet
from .encoder.nomic import NomicBert
from .encoder.tagger import TokenClassifier
from .files.installed import installed_folder, installed_translator
from .load import load
from .translator.seq2seq import Seq2Seq

__all__ = [
    "Albert",
    "Beam",
    "Bert",
    "DistilBert",
    "Electra",
    "Gpt",
    "Gte",
    "Llama",
    "MPNet",
    "ModelDraft",
    "ModernBert",
    "NgramDraft",
    "NomicBert",
    "PrefixCache",
    "QuestionAnswerer",
    "Sampler",
    "Seq2Seq",
    "SequenceClassifier",
    "TextStream",
    "TokenClassifier",
    "Written",
    "beam_search",
    "generate",
    "installed_folder",
    "installed_translator",
    "load",
]
