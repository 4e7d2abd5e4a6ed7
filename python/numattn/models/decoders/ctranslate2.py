"""Decoders from folders of CTranslate2's: TransformerDecoderSpec, as of GPT-2, Llama and Qwen."""

from __future__ import annotations

from numpy.typing import DTypeLike

from ..files.ctranslate2_file import Ctranslate2File
from ..files.ctranslate2_tensors import WITHOUT_EFFECT
from .ctranslate2_config import read_settings
from .ctranslate2_text import Ctranslate2Text
from .ctranslate2_weights import DecoderTensors
from .gpt import Gpt, GptConfig
from .llama import Llama
from .llama_config import LlamaConfig


def load_ctranslate2(file: Ctranslate2File, *, dtype: DTypeLike | None = None) -> Gpt | Llama:
    """Load a GPT-2, or a Llama, Qwen 2 or Qwen 3, which a folder tells by its variables.

    Integers become floats, which are stored as `dtype` says; "int8" of CTranslate2 is that of
    `Linear`, a scale for each row.

    Parameters
    ----------
    file : Ctranslate2File
        The folder: model.bin, config.json and vocabulary.json, and for texts tokenizer.json.
    dtype : {None, float32, bfloat16, int8, "w8a8"}
        How weights are stored: float32 by default.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ImportError
        If ml_dtypes is not installed, which bfloat16 needs.
    ValueError
        If the file is damaged, a variable is missing, unused or of another shape than others call
        for, or one asks for something that is not supported. The message names it.

    Examples
    --------
    >>> from numattn.models import load
    >>> model = load("Llama-3.2-1B-ct2-int8", dtype="int8")  # doctest: +SKIP
    """
    file.check_spec("TransformerDecoderSpec")
    tensors = DecoderTensors(file)
    settings, family = read_settings(tensors)
    model: Gpt | Llama
    if family == "gpt2":
        model = Gpt(GptConfig.from_settings(settings), tensors, dtype)
    else:
        model = Llama(LlamaConfig.from_settings(settings, family), tensors, dtype)
    tensors.finish(WITHOUT_EFFECT)
    model.text_source = Ctranslate2Text(file, settings.size("vocab_size"))
    return model
