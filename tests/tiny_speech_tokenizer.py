"""A Whisper's tokenizer, for the tiny ones of tiny_encoder_decoders."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tiny_encoder_decoders import NO_TIMES, STEPS

SPOKEN = [
    "x", "a", "b", "c", "e", "n", "s", "ing", "'t", "ed",
    "Ġ", "Ġa", "Ġthe", "Ġcat", "Ġdog", "Ġsat", "Ġon", "Ġmat", "Ġi", "Ġwas",
    ".", ",", "!", "?", "'", '"', "-", ")", "Ġ\"", "Ġ(",
    "Ã", "©", "æ", "Ĺ", "¥", "ľ", "¬", "ã", "Ģ", "Ĥ",
    "ĠÂ", "¿", "Ġ-", "Ġ'", "Ġn", "ot", "er", "ly", "o", "t",
]  # fmt: skip
"""Tokens of bytes: of words, marks, é, 日, 本, 。 and ¿."""


def write_speech_tokenizer(folder: Path) -> Path:
    """Write the tokenizer of a Whisper: SPOKEN, and what tiny_encoder_decoders has beyond."""
    vocabulary = {token: number for number, token in enumerate(SPOKEN)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["endoftext", "startoftranscript", "en", "de", "pt", "translate", "transcribe"]
    special += ["startofprev", "nospeech", "notimestamps"]
    tokenizer.add_special_tokens([f"<|{name}|>" for name in special])
    tokenizer.add_tokens([f"<|{number * 0.02:.2f}|>" for number in range(STEPS + 1)])
    assert tokenizer.token_to_id("<|notimestamps|>") == NO_TIMES
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {name: "<|endoftext|>" for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    config = {"tokenizer_class": "WhisperTokenizer", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
