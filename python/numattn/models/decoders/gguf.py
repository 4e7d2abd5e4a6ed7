"""Decoders from GGUF files, llama.cpp's, of which one holds a whole model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from numpy.typing import DTypeLike

from ..files.gguf_file import GgufFile
from .gguf_config import read_settings
from .gguf_text import GgufText
from .gguf_weights import GgufTensors
from .gpt import Gpt, GptConfig
from .llama import Llama
from .llama_config import LlamaConfig


def load_gguf(path: str | Path, *, dtype: DTypeLike | None = None) -> Gpt | Llama:
    """Load a model from a GGUF file: of the architectures llama (Mistral's and Mixtral's, too),
    qwen2, qwen3, gemma, gemma2, gemma3, phi3 or gpt2.

    By default weights stay quantised as they are: those of Q8_0, Q6_K and Q5_0 take 1.25 bytes a
    number, those of Q4_0, Q4_1 and Q4_K 0.75, and what is quantised otherwise, tables of
    embeddings and GPT-2 become float32. With a `dtype` all become floats, stored so: by "int8" a
    row of a weight has one scale, where Q8_0 has one for each 32 of its numbers.

    Parameters
    ----------
    path : path
        The file; of a model that is split, any of its files, all of which lie beside it.
    dtype : {None, float32, bfloat16, int8, "w8a8"}
        How weights are stored: by default as the file has them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the library gguf is not installed, or ml_dtypes for bfloat16.
    ValueError
        If the file is damaged, a tensor is missing, unused or of another shape
        than the metadata say, or these ask for something that is not supported. The message names
        it.

    Examples
    --------
    >>> from numattn.models import load
    >>> model = load("Qwen3-0.6B-Q8_0.gguf", dtype="bfloat16")  # doctest: +SKIP
    """
    file = GgufFile(Path(path))
    settings, family = read_settings(file)
    model: Gpt | Llama
    if family == "gpt2":
        tensors = GgufTensors(file, family, {})
        model = Gpt(GptConfig.from_settings(settings), tensors, dtype)
    else:
        # Weights of norms are what they stand for, also those that a folder has less 1.
        config = replace(LlamaConfig.from_settings(settings, family), norm_offset=0)
        heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}
        turned = heads if family in ("llama", "mixtral") else {}
        count = 0 if config.experts is None else config.experts.count
        tensors = GgufTensors(file, family, turned, count, keeps=dtype is None)
        model = Llama(config, tensors, dtype)
    tensors.finish()
    model.text_source = GgufText(file.path, file.values)
    return model
