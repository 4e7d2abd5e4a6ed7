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
from .decoders.neox import GptNeox
from .decoders.prefix_cache import PrefixCache
from .decoders.written import TextStream, Written
from .embedder.embedder import Embedder
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
from .encoder_decoder.bart import Bart
from .encoder_decoder.t5 import T5
from .encoder_decoder.whisper import Whisper
from .files.installed import installed_folder, installed_translator
from .load import load
from .rollout import attention_rollout
from .sampling import Sampler
from .translator.seq2seq import Seq2Seq
from .vision.clip import Clip
from .vision.detr import Detr
from .vision.image_classifier import ImageClassifier
from .vision.vit import ViT

__all__ = [
    "Albert",
    "Bart",
    "Beam",
    "Bert",
    "Clip",
    "Detr",
    "DistilBert",
    "Electra",
    "Embedder",
    "Gpt",
    "GptNeox",
    "Gte",
    "ImageClassifier",
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
    "T5",
    "TextStream",
    "TokenClassifier",
    "ViT",
    "Whisper",
    "Written",
    "attention_rollout",
    "beam_search",
    "generate",
    "installed_folder",
    "installed_translator",
    "load",
]
