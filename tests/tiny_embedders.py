"""Folders of sentence-transformers' of tiny random decoders, as those of two families are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from tiny_decoders import VOCABULARY, config_of, tensors_of, write_folder

WORDS = "the a cat dog sat on mat it was and ran unbelievable , . kitten naps".split()
TEXTS = [
    "the cat sat on the mat .", "a dog", "it was unbelievable , and the dog ran on and on and on",
    "cat", "a kitten naps , and it was a cat . the dog sat on the mat and ran .",
]  # fmt: skip
FAMILIES = ("qwen3", "gemma3_text")
LIBRARY = "sentence_transformers.models."
# Of each family: its modules after the first, and what their config.json hold.
MODULES: dict[str, list[tuple[str, dict[str, Any] | None]]] = {
    "qwen3": [
        ("Pooling", {"word_embedding_dimension": 32, "pooling_mode_lasttoken": True,
                     "pooling_mode_mean_tokens": False, "include_prompt": True}),
        ("Normalize", None),
    ],
    "gemma3_text": [
        ("Pooling", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}),
        ("Dense", {"in_features": 32, "out_features": 48, "bias": False,
                   "activation_function": "torch.nn.modules.linear.Identity"}),
        ("Dense", {"in_features": 48, "out_features": 20, "bias": True}),
        ("Normalize", None),
    ],
}  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "qwen3": {"architectures": ["Qwen3Model"]},
    "gemma3_text": {
        "architectures": ["Gemma3TextModel"], "use_bidirectional_attention": True,
        "sliding_window": 6,
    },
}  # fmt: skip


def write_embedder(
    folder: Path,
    family: str,
    config: dict[str, Any] | None = None,
    modules: list[tuple[str, dict[str, Any] | None]] | None = None,
) -> Path:
    """Write a folder and return it."""
    tensors = tensors_of(config_of(family))
    # Without a projection to logits, and so without a prefix, as such folders are.
    names = {name.removeprefix("model."): x for name, x in tensors.items() if name[:2] != "lm"}
    write_folder(folder, family, {**CHANGES[family], **(config or {})}, names)
    listed = [{"idx": 0, "name": "0", "path": "", "type": f"{LIBRARY}Transformer"}]
    rng = np.random.default_rng(7)
    for number, (kind, settings) in enumerate(modules or MODULES[family], 1):
        place = folder / f"{number}_{kind}"
        place.mkdir(exist_ok=True)
        listed.append(
            {"idx": number, "name": str(number), "path": place.name, "type": LIBRARY + kind}
        )
        if settings is not None:
            (place / "config.json").write_text(json.dumps(settings), encoding="utf-8")
        if kind == "Dense" and settings is not None:
            rows, columns = settings["out_features"], settings["in_features"]
            weights = {"linear.weight": rng.normal(0, 0.2, (rows, columns)).astype(np.float32)}
            if settings["bias"]:
                weights["linear.bias"] = rng.normal(0, 0.2, rows).astype(np.float32)
            save_file(weights, place / "model.safetensors")
    (folder / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of words, which ends a text as Qwen3-Embedding's does."""
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<end>", "<unk>", *WORDS])}
    assert len(vocabulary) <= VOCABULARY
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    tokenizer.add_special_tokens(["<pad>", "<end>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<end>",
        "unk_token": "<unk>", "model_max_length": 64, "padding_side": "left",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
