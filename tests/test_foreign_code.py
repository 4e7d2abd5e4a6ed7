"""What else a folder may hold that makes another model of its weights: used, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import tiny_bert
import tiny_decoders
from numattn.models import Bert, Llama
from numattn.models.decoders.llama_config import CLASSES
from numattn.models.encoder.bert_config import FAMILIES
from numattn.models.files.foreign_code import ENDINGS
from numattn.models.vision import clip_config, vit_config
from tiny_decoders import config_of, load, tensors_of
from tolerance import assert_same_bits

IDS = [[1, 5, 7, 0]]
DECODERS = {**CLASSES, "gpt2": "GPT2"}
PHI3 = {
    "AutoConfig": "configuration_phi3.Phi3Config",
    "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
}
FOREIGN = [
    {"AutoModel": "modeling.Model"},
    {"AutoModel": "modeling_llama.LlamaModel2"},
    {"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"},
    {"AutoModelForCausalLM": "Phi3ForCausalLMMoe"},
    "modeling.Model",
    {"AutoModel": 3},
    {"AutoTokenizer": ["tokenization.ReversedTokenizer", None]},
]


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_whose_code_became_transformers_own(tmp_path: Path, family: str) -> None:
    stem = DECODERS[family]
    names = {f"Auto{end}": f"modeling_{family}.{stem}{end}" for end in ("Config", "ForCausalLM")}
    auto_map = {**names, "AutoTokenizer": [f"owner/repo--code.{stem}Tokenizer", None]}
    relic = tiny_decoders.write_folder(tmp_path / "relic", family, {"auto_map": auto_map})
    plain = tiny_decoders.write_folder(tmp_path / "plain", family)
    assert_same_bits(load(relic, family)(IDS), load(plain, family)(IDS))


def test_phi3_as_it_is_published(tmp_path: Path) -> None:
    folder = tiny_decoders.write_folder(tmp_path, "phi3", {"auto_map": PHI3})
    assert load(folder, "phi3")(IDS).shape == (1, 4, tiny_decoders.VOCABULARY)


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("auto_map", FOREIGN)
def test_a_decoder_of_other_code(tmp_path: Path, family: str, auto_map: Any) -> None:
    folder = tiny_decoders.write_folder(tmp_path, family, {"auto_map": auto_map})
    with pytest.raises(ValueError, match=r"config.json: auto_map .* names code of the folder's ow"):
        load(folder, family)


def test_a_class_of_another_family(tmp_path: Path) -> None:
    folder = tiny_decoders.write_folder(tmp_path, "llama", {"auto_map": PHI3})
    with pytest.raises(ValueError, match="'configuration_phi3.Phi3Config'.* not run"):
        Llama.from_folder(folder)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("auto_map", FOREIGN)
def test_an_encoder_of_other_code(tmp_path: Path, family: str, auto_map: Any) -> None:
    settings = {"model_type": family, "auto_map": auto_map}
    with pytest.raises(ValueError, match=r"config.json: auto_map .* names code of the folder's ow"):
        Bert.from_folder(tiny_bert.write_folder(tmp_path, settings))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_whose_code_became_transformers_own(tmp_path: Path, family: str) -> None:
    auto_map = {"AutoModel": f"modeling.{FAMILIES[family]}Model"}
    relic, plain = (
        Bert.from_folder(
            tiny_bert.write_folder(
                tmp_path / name, {"model_type": family, "auto_map": value, "pad_token_id": 0}
            )
        )
        for name, value in (("relic", auto_map), ("plain", None))
    )
    assert_same_bits(relic.encode(["a cat"]), plain.encode(["a cat"]))


@pytest.mark.parametrize("auto_map", FOREIGN)
def test_a_tokenizer_of_other_code(tmp_path: Path, auto_map: Any) -> None:
    folder = tiny_bert.write_folder(tmp_path, tokenizer_config={"auto_map": auto_map})
    with pytest.raises(ValueError, match="tokenizer_config.json: auto_map .* not run"):
        Bert.from_folder(folder)


def test_a_tokenizer_whose_code_became_transformers_own(tmp_path: Path) -> None:
    auto_map = {"AutoTokenizer": ["code.BertTokenizer", "code.PreTrainedTokenizerFast"]}
    folder = tiny_bert.write_folder(tmp_path, tokenizer_config={"auto_map": auto_map})
    assert Bert.from_folder(folder).encode(["a cat"]).shape == (1, 32)


def test_the_names_are_those_of_transformers() -> None:
    """Of every family, all that it has; and no ending is without a class."""
    transformers = pytest.importorskip("transformers")
    stems = {*DECODERS.values(), *FAMILIES.values()}
    stems |= {*clip_config.FAMILIES.values(), *vit_config.FAMILIES.values()}
    found = {end for stem in stems for end in ENDINGS if hasattr(transformers, stem + end)}
    assert found == {*ENDINGS}
    for stem in stems:
        assert hasattr(transformers, f"{stem}Config") and hasattr(transformers, f"{stem}Model")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"quantization_config": {"load_in_8bit": True}}, r"quantization_config \{'load_in_8bit'"),
        ({"compression_config": {"format": "int"}}, "compression_config .* quantised weights"),
        ({"torch_dtype": "float8_e4m3fn"}, "torch_dtype 'float8_e4m3fn' is not supported"),
        ({"dtype": "int8"}, "config.json: dtype 'int8' is not supported"),
        ({"dtype": 16}, "dtype 16 is not supported"),
        ({"transformers_weights": "other.safetensors"}, "transformers_weights 'other.safetensors'"),
    ],
)
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_weights_that_are_others(
    tmp_path: Path, family: str, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        if family == "bert":
            Bert.from_folder(tiny_bert.write_folder(tmp_path, setting))
        else:
            load(tiny_decoders.write_folder(tmp_path, family, setting), family)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "torch.float16", "auto", None])
def test_how_the_weights_were_stored_changes_nothing(tmp_path: Path, name: str | None) -> None:
    named = tiny_decoders.write_folder(
        tmp_path / "named", config={"torch_dtype": name, "quantization_config": tiny_decoders.NULL}
    )
    plain = tiny_decoders.write_folder(tmp_path / "plain")
    assert_same_bits(load(named, "llama")(IDS), load(plain, "llama")(IDS))


def test_an_adapter_where_modules_json_has_the_model(tmp_path: Path) -> None:
    modules = [
        {"path": place, "type": f"sentence_transformers.models.{kind}"}
        for place, kind in (("0_Transformer", "Transformer"), ("1_Pooling", "Pooling"))
    ]
    tiny_bert.write_folder(tmp_path / "0_Transformer", adapter_config={"peft_type": "LORA"})
    (tmp_path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"0_Transformer/adapter_config.json belongs to an adapte"):
        Bert.from_folder(tmp_path)


def write_index(folder: Path, files: dict[str, str]) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}), encoding="utf-8")


def test_shards_beside_a_whole_file(tmp_path: Path) -> None:
    """transformers takes the whole file without a word; which is meant, nobody can know."""
    folder = tiny_decoders.write_folder(tmp_path)
    plain = load(folder, "llama")(IDS)
    tensors = tensors_of(config_of("llama"), seed=1)
    write_index(folder, dict.fromkeys(tensors, "model-1.safetensors"))
    assert_same_bits(load(folder, "llama")(IDS), plain)  # what is left of shards that are gone
    save_file(tensors, folder / "model-1.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors and .*model-1.safetensors.* a model"):
        load(folder, "llama")
    (folder / "model.safetensors").unlink()
    assert not np.array_equal(load(folder, "llama")(IDS), plain)


def test_an_index_of_the_whole_file(tmp_path: Path) -> None:
    folder = tiny_decoders.write_folder(tmp_path)
    plain = load(folder, "llama")(IDS)
    write_index(folder, dict.fromkeys(tensors_of(config_of("llama")), "model.safetensors"))
    assert_same_bits(load(folder, "llama")(IDS), plain)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    folder = tiny_decoders.write_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    tensors = tensors_of(config_of("llama"))
    name = "model.norm.weight"
    write_index(folder, {**dict.fromkeys(tensors, "a.safetensors"), name: "b.safetensors"})
    save_file(tensors, folder / "a.safetensors")
    save_file({name: 2 * tensors[name]}, folder / "b.safetensors")
    with pytest.raises(ValueError, match=rf"tensor {name} is in .*a.safetensors and in .*b.safet"):
        load(folder, "llama")
