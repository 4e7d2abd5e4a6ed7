"""Tiny random encoders of every family, beside transformers' own where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_bert import VOCABULARY, tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
    "pad_token_id": 0,
}
# The stem of the names of a family's classes in transformers → settings, of several kinds each.
FAMILIES: dict[str, list[dict[str, Any]]] = {
    "Bert": [SIZES],
    "Roberta": [{**SIZES, "pad_token_id": 1, "type_vocab_size": 1}],
    "DistilBert": [
        {
            "vocab_size": len(VOCABULARY),
            "dim": 32,
            "n_layers": 3,
            "n_heads": 4,
            "hidden_dim": 48,
            "max_position_embeddings": 24,
            "activation": activation,
        }
        for activation in ("gelu", "relu")
    ],
    "Albert": [
        {**SIZES, "embedding_size": 16},
        {**SIZES, "embedding_size": 32, "num_hidden_groups": 2, "inner_group_num": 2},
    ],
    "MPNet": [{**SIZES, "pad_token_id": 1}],
    "Electra": [{**SIZES, "embedding_size": 16}, {**SIZES, "embedding_size": 32}],
    "ModernBert": [
        {**SIZES, "local_attention": 6, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
         "sep_token_id": 3},
        {**SIZES, "local_attention": 5, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
         "sep_token_id": 3, "norm_bias": True, "mlp_bias": True, "attention_bias": True,
         "classifier_pooling": "mean", "classifier_bias": True, "hidden_activation": "relu",
         "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ],
    "NomicBert": [SIZES],
    "Gte": [SIZES, {**SIZES, "type_vocab_size": 0}],
}  # fmt: skip
CASES = [(stem, number) for stem, kinds in FAMILIES.items() for number in range(len(kinds))]
CLASSES = {"Roberta": "Bert"}


def theirs(stem: str, number: int = 0, task: str = "Model", **more: Any) -> Any:
    """Return a model of transformers' with random weights, larger than it makes them."""
    import torch
    import transformers

    torch.manual_seed(number)
    config = getattr(transformers, f"{stem}Config")(**FAMILIES[stem][number], **more)
    model = getattr(transformers, f"{stem}{task}")(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn_like(weight)
            weight.copy_(1 + 0.2 * noise if is_gain(name) else 0.2 * noise)
    return model


def is_gain(name: str) -> bool:
    """Return whether a parameter is what a norm multiplies by."""
    return "norm" in name.lower() and name.endswith("weight")


def save(model: Any, folder: Path) -> Path:
    """Save a model of transformers' in a folder, with a tokenizer, and return the folder."""
    model.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder
