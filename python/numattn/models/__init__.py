"""Small NumPy models on numattn's public API.

They need the libraries safetensors and tokenizers; importing this module does not.
"""

from __future__ import annotations

from .decoders.beams import Beam, beam_search
from .decoders.drafts import ModelDraft, NgramDraft
from .decoders.generate import generate
from .decoders.gpt import Gpt
from .decoders.llama import Llama
from .decoders.sampling import Sampler
from .encoder.bert import Bert
from .files.installed import installed_folder, installed_translator
from .load import load
from .rollout import attention_rollout
from .translator.seq2seq import Seq2Seq
from .vision.clip import Clip
from .vision.detr import Detr
from .vision.vit import ViT

__all__ = [
    "Beam",
    "Bert",
    "Clip",
    "Detr",
    "Gpt",
    "Llama",
    "ModelDraft",
    "NgramDraft",
    "Sampler",
    "Seq2Seq",
    "ViT",
    "attention_rollout",
    "beam_search",
    "generate",
    "installed_folder",
    "installed_translator",
    "load",
]
