"""Decoders' tokenizers of the two usual kinds, made by the tests, and folders that have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

from numattn.models import Llama
from tiny_decoders import config_of, tensors_of, write_folder

SIZE = 330
TEXTS = ["the cat sat on the mat, and the dog was tired", "the animal that sat was the cat"]
SPECIAL = ["<|bos|>", "<|end|>", "<|im_start|>", "<|im_end|>"]


def bytes_tokenizer() -> Tokenizer:
    """Return a tokenizer as GPT-2's: pairs of bytes, of which a character may have several."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=SIZE - 10, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def pieces_tokenizer() -> Tokenizer:
    """Return a tokenizer as Llama's: pieces with "▁" for a space, else bytes; BOS first."""
    words = ["▁", "t", "h", "e", "c", "a", "s", "th", "▁t", "▁th", "▁the", "▁c", "▁ca", "n", "l"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    merges = [("t", "h"), ("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("▁", "c"), ("▁c", "a")]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


KINDS = {"bytes": bytes_tokenizer, "pieces": pieces_tokenizer}


def write_text_folder(
    folder: Path,
    kind: str = "bytes",
    *,
    config: dict[str, Any] | None = None,
    tokenizer_config: dict[str, Any] | None = None,
    generation_config: dict[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write a tiny Llama of SIZE tokens with a tokenizer of that kind, and return its folder."""
    settings = {**config_of("llama"), "vocab_size": SIZE, **(config or {})}
    tensors = tensors_of(settings, seed)
    rng = np.random.default_rng(seed)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        shape = (SIZE, settings["hidden_size"])
        tensors[name] = rng.normal(0, 0.3, shape).astype(np.float32)
    write_folder(folder, "llama", {"vocab_size": SIZE, **(config or {})}, tensors)
    KINDS[kind]().save(str(folder / "tokenizer.json"))
    for name, values in (
        ("tokenizer_config", tokenizer_config),
        ("generation_config", generation_config),
    ):
        if values is not None:
            (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def text_model(folder: Path, kind: str = "bytes", **options: Any) -> Llama:
    """Return the model of such a folder, which is written."""
    return Llama.from_folder(write_text_folder(folder, kind, **options))
