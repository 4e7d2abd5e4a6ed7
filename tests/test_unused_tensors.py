"""Weights that do not fit their configuration: every tensor is used, or named in an error."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_bert
import tiny_decoders
import tiny_marian
from numattn.models import Bert, Gpt, Llama, Seq2Seq

Tensors = dict[str, NDArray[Any]]


def some(*shape: int) -> NDArray[np.float32]:
    return np.full(shape, 0.5, np.float32)


def bert_with(folder: Path, more: Tensors, **config: Any) -> Bert:
    tensors = {**tiny_bert.tensors_of(tiny_bert.CONFIG), **more}
    return Bert.from_folder(tiny_bert.write_folder(folder, config, tensors))


def decoder_with(folder: Path, family: str, more: Tensors, **config: Any) -> Gpt | Llama:
    tensors = {**tiny_decoders.tensors_of(tiny_decoders.config_of(family)), **more}
    return tiny_decoders.load(tiny_decoders.write_folder(folder, family, config, tensors), family)


@pytest.mark.parametrize(
    "more",
    [
        {"encoder.layer.0.attention.self.distance_embedding.weight": some(47, 8)},
        {"encoder.layer.1.crossattention.self.query.weight": some(32, 32)},
        {"embeddings.factor.weight": some(22, 4)},
        {"encoder.layer.0.attention.self.query.lora_A.default.weight": some(4, 32)},
        {"dense.weight": some(8, 32)},
    ],
)
def test_what_an_encoder_does_not_use(tmp_path: Path, more: Tensors) -> None:
    (name,) = more
    with pytest.raises(ValueError, match=f"model.safetensors has tensors .* not use: {name}$"):
        bert_with(tmp_path, more)


@pytest.mark.parametrize("prefix", ["", "bert.", "roberta."])
def test_heads_and_buffers_that_an_encoder_may_have(tmp_path: Path, prefix: str) -> None:
    tensors = tiny_bert.tensors_of(tiny_bert.CONFIG)
    plain = Bert.from_folder(tiny_bert.write_folder(tmp_path / "plain", {}, tensors))
    named = {prefix + name: value for name, value in tensors.items()}
    more = {
        f"{prefix}embeddings.position_ids": np.arange(24)[np.newaxis],
        f"{prefix}embeddings.token_type_ids": np.zeros((1, 24), np.int64),
        f"{prefix}pooler.dense.weight": some(32, 32),
        f"{prefix}pooler.dense.bias": some(32),
        "cls.predictions.transform.dense.weight": some(32, 32),
        "cls.seq_relationship.bias": some(2),
        "lm_head.layer_norm.weight": some(32),
        "classifier.weight": some(2, 32),
        "qa_outputs.bias": some(2),
    }
    folder = tiny_bert.write_folder(tmp_path / "more", {}, {**named, **more})
    texts = tiny_bert.SENTENCES
    np.testing.assert_array_equal(Bert.from_folder(folder).encode(texts), plain.encode(texts))


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("llama", {"model.layers.0.self_attn.q_norm.weight": some(8)}),
        ("llama", {"model.layers.1.self_attn.q_proj.bias": some(32)}),
        ("llama", {"model.layers.2.mlp.down_proj.bias": some(32)}),
        ("qwen2", {"model.layers.0.self_attn.o_proj.bias": some(32)}),
        ("gemma2", {"model.layers.0.mlp.experts.0.up_proj.weight": some(40, 32)}),
        ("llama", {"score.weight": some(2, 32)}),
        ("gpt2", {"transformer.h.1.crossattention.c_attn.weight": some(32, 64)}),
        ("gpt2", {"multiple_choice_head.summary.weight": some(1, 32)}),
    ],
)
def test_what_a_decoder_does_not_use(tmp_path: Path, family: str, more: Tensors) -> None:
    (name,) = more
    with pytest.raises(ValueError, match=f"model.safetensors has tensors .* not use: {name}$"):
        decoder_with(tmp_path, family, more)


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("llama", {"model.layers.0.self_attn.rotary_emb.inv_freq": some(4)}),
        ("llama", {"model.rotary_emb.inv_freq": some(4)}),
        (
            "gpt2",
            {
                "transformer.h.0.attn.bias": np.tril(np.ones((1, 1, 96, 96), bool)),
                "transformer.h.0.attn.masked_bias": np.array(-1e4, np.float32),
            },
        ),
    ],
)
def test_buffers_that_a_decoder_may_have(tmp_path: Path, family: str, more: Tensors) -> None:
    ids = [[1, 2, 3]]
    plain = decoder_with(tmp_path / "plain", family, {})
    np.testing.assert_array_equal(decoder_with(tmp_path / "more", family, more)(ids), plain(ids))


def test_many_unused_tensors_are_counted(tmp_path: Path) -> None:
    more = {f"extra.{number}.weight": some(1) for number in range(9)}
    with pytest.raises(ValueError, match=r"extra\.0\.weight, .*extra\.4\.weight and 4 more$"):
        bert_with(tmp_path, more)


@pytest.mark.parametrize("count", [1, 3, 1 << 24])
def test_another_number_of_layers_than_the_file_has(tmp_path: Path, count: int) -> None:
    message = rf"calls for {count} \(num_hidden_layers\)"
    with pytest.raises(ValueError, match=f"model.safetensors has 2 layers .*{message}"):
        bert_with(tmp_path / "bert", {}, num_hidden_layers=count)
    for family in ("llama", "gpt2"):
        setting = "n_layer" if family == "gpt2" else "num_hidden_layers"
        other = count if count != 3 else 4
        message = rf"calls for {other} \({setting}\)"
        with pytest.raises(ValueError, match=f"model.safetensors has 3 layers .*{message}"):
            decoder_with(tmp_path / family, family, {}, **{setting: other})


@pytest.mark.parametrize("name", ["n_layer", "n_embd", "n_positions", "vocab_size"])
def test_sizes_beyond_all_models(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"config.json: {name} must be at most 16777216, not 10"):
        decoder_with(tmp_path, "gpt2", {}, **{name: 10**9})


def test_what_a_translator_does_not_use(tmp_path: Path) -> None:
    tensors = tiny_marian.tensors()
    more = {**tensors, "encoder_l1_self_gate": some(16, 16)}
    folder = tiny_marian.write_folder(tmp_path / "more", given=more)
    with pytest.raises(ValueError, match=r"\.bin has tensors .* not use: encoder_l1_self_gate$"):
        Seq2Seq.from_folder(folder)
    with pytest.raises(ValueError, match=r"has 2 layers encoder_l…, .* for 1 \(enc-depth\)"):
        Seq2Seq.from_folder(tiny_marian.write_folder(tmp_path / "few", None, {"enc-depth": "1"}))


@pytest.mark.parametrize("multiplier", [float("nan"), 0.0, -1.0, float("inf")])
def test_a_multiplier_that_makes_no_numbers(tmp_path: Path, multiplier: float) -> None:
    folder = tiny_marian.write_folder(tmp_path)
    (path,) = folder.glob("*.intgemm.alphas.bin")
    data = bytearray(path.read_bytes())
    from numattn.models.translator.marian_file import MarianFile

    item = MarianFile(path)._items["Wemb"]
    place = item.start + item.shape[0] * item.shape[1]
    data[place : place + 4] = struct.pack("<f", multiplier)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"tensor Wemb in .*\.bin has multiplier .* positive"):
        Seq2Seq.from_folder(folder)
