"""What folders of decoders may hold, and what is said of those that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from numattn.models import Gpt, Llama
from tiny_decoders import FAMILIES, LLAMA3_SCALING, NULL, config_of, load, tensors_of, write_folder
from tolerance import assert_same_bits

IDS = [[1, 5, 7, 60, 0]]


def write_shards(folder: Path, family: str, files: int = 3) -> Path:
    """Write the folder with its tensors in several files and an index."""
    write_folder(folder, family)
    (folder / "model.safetensors").unlink()
    tensors = tensors_of(config_of(family))
    names = {name: f"model-{index % files}.safetensors" for index, name in enumerate(tensors)}
    for file in set(names.values()):
        save_file({n: t for n, t in tensors.items() if names[n] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_shards_are_as_one_file(tmp_path: Path, family: str) -> None:
    one = load(write_folder(tmp_path / "one", family), family)
    several = load(write_shards(tmp_path / "several", family), family)
    assert_same_bits(several(IDS), one(IDS))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_weights_of_other_dtypes(tmp_path: Path, dtype: Any) -> None:
    tensors = {name: x.astype(dtype) for name, x in tensors_of(config_of("llama")).items()}
    rounded = {name: x.astype(np.float32) for name, x in tensors.items()}
    model = load(write_folder(tmp_path / "a", tensors=tensors), "llama")
    assert_same_bits(model(IDS), load(write_folder(tmp_path / "b", tensors=rounded), "llama")(IDS))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_head_of_its_own_and_a_missing_prefix(tmp_path: Path, family: str) -> None:
    """GPT-2's first files have no "transformer."; and any family may have a head of its own."""
    tensors = tensors_of(config_of(family))
    tensors.pop("lm_head.weight", None)
    table = "transformer.wte.weight" if family == "gpt2" else "model.embed_tokens.weight"
    tied = load(
        write_folder(tmp_path / "tied", family, {"tie_word_embeddings": True}, tensors), family
    )
    tensors["lm_head.weight"] = 2 * tensors[table]
    config = {"tie_word_embeddings": False}
    own = load(write_folder(tmp_path / "own", family, config, tensors), family)
    np.testing.assert_array_equal(own(IDS), 2 * tied(IDS))
    # A projection that the file has is used, whatever the configuration says, as in transformers.
    config = {"tie_word_embeddings": True}
    trained = load(write_folder(tmp_path / "trained", family, config, tensors), family)
    np.testing.assert_array_equal(trained(IDS), own(IDS))
    if family == "gpt2":
        del tensors["lm_head.weight"]
        bare = {name.removeprefix("transformer."): x for name, x in tensors.items()}
        np.testing.assert_array_equal(
            load(write_folder(tmp_path / "bare", family, {}, bare), family)(IDS), tied(IDS)
        )


def test_positions_as_newer_files_name_them(tmp_path: Path) -> None:
    old = write_folder(tmp_path / "old", config={"rope_theta": 5e5, "rope_scaling": LLAMA3_SCALING})
    parameters = {**LLAMA3_SCALING, "rope_theta": 5e5}
    changes = {"rope_theta": None, "rope_parameters": parameters}
    new = write_folder(tmp_path / "new", config=changes)
    assert_same_bits(load(old, "llama")(IDS), load(new, "llama")(IDS))
    plain = write_folder(tmp_path / "plain", config={"rope_theta": 5e5})
    assert not np.array_equal(load(plain, "llama")(IDS), load(new, "llama")(IDS))


def test_linear_scaling_makes_positions_closer(tmp_path: Path) -> None:
    """A factor of 2 gives position 2p the angles that p has without it."""
    scaled = load(
        write_folder(tmp_path / "a", config={"rope_scaling": {"type": "linear", "factor": 2.0}}),
        "llama",
    )
    plain = load(write_folder(tmp_path / "b"), "llama")
    assert isinstance(scaled, Llama) and isinstance(plain, Llama)
    for got, expected in zip(
        scaled.config.ropes[0].tables(np.arange(0, 40, 2)),
        plain.config.ropes[0].tables(np.arange(20)),
        strict=True,
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("family", "config", "windows"),
    [
        ("llama", {"sliding_window": 9}, (None, None, None)),
        ("mistral", {}, (4, 4, 4)),
        ("mistral", {"sliding_window": None}, (4095, 4095, 4095)),
        ("mistral", {"sliding_window": NULL}, (None, None, None)),
        ("gemma2", {"sliding_window": None}, (4095, None, 4095)),
        ("gemma2", {"sliding_window": NULL}, (None, None, None)),
        ("phi3", {}, (None, None, None)),
        ("phi3", {"sliding_window": 7}, (6, 6, 6)),
        ("qwen2", {"use_sliding_window": True}, (None, None, None)),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}, (None, 4095, 4095)),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 0}, (4095, 4095, 4095)),
        ("gemma2", {}, (4, None, 4)),
        (
            "gemma2",
            {"layer_types": ["full_attention", "full_attention", "sliding_attention"]},
            (None, None, 4),
        ),
        ("qwen2", {"sliding_window": 7}, (None, None, None)),
        (
            "qwen2",
            {"sliding_window": 7, "use_sliding_window": True, "max_window_layers": 2},
            (None, None, 6),
        ),
    ],
)
def test_windows(
    tmp_path: Path, family: str, config: dict[str, Any], windows: tuple[int | None, ...]
) -> None:
    model = load(write_folder(tmp_path, family, config), family)
    assert model.config.windows == windows
    assert model.new_cache(1).windows == windows


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("llama", {"model_type": "falcon"}, "config.json: model_type 'falcon' is not supported"),
        ("llama", {"model_type": None}, "config.json has no model_type"),
        ("llama", {"hidden_size": None}, "config.json has no hidden_size"),
        ("llama", {"hidden_size": 32.5}, "hidden_size must be a positive whole number, not 32.5"),
        ("llama", {"num_key_value_heads": 3}, "4 heads do not divide among 3 key heads"),
        ("llama", {"head_dim": 7}, "config.json: dim must be an even number of elements that turn"),
        ("llama", {"hidden_act": "gelu_10"}, "hidden_act 'gelu_10' is not supported"),
        ("llama", {"rms_norm_eps": "small"}, "rms_norm_eps must be a positive number, not 'small'"),
        ("llama", {"attention_bias": 1}, "attention_bias must be true or false, not 1"),
        ("llama", {"rope_scaling": {"rope_type": "spiral"}}, "unknown type of scaling 'spiral'"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "config.json: .* 'linear' needs 'factor'"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": "2"}}, "must be a number, not '2'"),
        ("llama", {"rope_scaling": [1]}, r"rope_scaling must be an object, not \[1\]"),
        ("llama", {"rope_parameters": "no"}, "rope_parameters must be an object, not 'no'"),
        ("llama", {"partial_rotary_factor": 1.5}, "partial_rotary_factor .* at most 1, not 1.5"),
        ("llama", {"rope_theta": -1.0}, "config.json: rope_theta .* positive and finite, not -1"),
        ("gemma2", {"layer_types": ["full_attention"]}, "layer_types must name one of"),
        ("gemma2", {"query_pre_attn_scalar": NULL}, "config.json has no query_pre_attn_scalar"),
        ("llama", {"is_causal": False}, "is_causal False is not supported: a token attends to th"),
        ("gpt2", {"is_causal": False}, "is_causal False is not supported"),
        ("qwen2", {"is_causal": NULL}, "is_causal None is not supported"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention True is n"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is not supported for ll"),
        (
            "qwen2",
            {"layer_types": ["sliding_attention"] * 3},
            "layer_types names sliding_attention, and there is no sliding_window for it",
        ),
        ("llama", {"layer_types": ["sliding_attention"] * 3}, "there is no sliding_window for it"),
        ("phi3", {"layer_types": ["full_attention"] * 2}, "layer_types must name one of"),
        ("phi3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type 'linear' is not"),
        ("phi3", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "'longrope' needs 'short_fac"),
        (
            "llama",
            {"rope_parameters": {"rope_theta": 5e5}, "rope_scaling": LLAMA3_SCALING},
            "rope_theta is 500000.0 in the config's rope_parameters and 10000.0 by its rope_scali",
        ),
        (
            "gemma3_text",
            {"attn_logit_softcapping": 50.0},
            "attn_logit_softcapping 50.0 is not supp",
        ),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention True"),
        ("gemma3_text", {"sliding_window": NULL}, "names sliding_attention, and there is no slid"),
        ("smollm3", {"no_rope_layers": [1, 0]}, r"no_rope_layers must have 1 or 0 for each of 3"),
        (
            "smollm3",
            {"no_rope_layers": [1, 0, 2]},
            r"no_rope_layers must have 1 or 0 .* \[1, 0, 2\]",
        ),
        (
            "mixtral",
            {"layer_types": ["full_attention"] * 3},
            "layer_types is not supported for mix",
        ),
        ("mixtral", {"num_experts_per_tok": 6}, "num_experts_per_tok is 6, and there are 5 exper"),
        ("granite", {"residual_multiplier": 0}, "residual_multiplier must be a positive number"),
        ("gpt_oss", {"quantization_config": {"quant_method": "fp8"}}, "quantised weights"),
        ("gpt_oss", {"swiglu_limit": "7"}, "swiglu_limit must be a positive number, not '7'"),
        ("gpt_neox", {"num_attention_heads": 5}, "hidden_size 32 does not divide into 5 heads"),
        ("gpt_neox", {"is_causal": False}, "is_causal False is not supported"),
        ("gpt2", {"model_type": "llama"}, "model_type 'llama' is not supported; supp"),
        ("gpt2", {"n_head": 5}, "n_embd 32 does not divide into 5 heads"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention True is not supported"),
    ],
)
def test_configurations_that_are_refused(
    tmp_path: Path, family: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(write_folder(tmp_path, family, config), family)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_must_be_there_and_have_its_shape(tmp_path: Path, family: str) -> None:
    tensors = tensors_of(config_of(family))
    for number, name in enumerate(tensors):
        without = {key: x for key, x in tensors.items() if key != name}
        folder = write_folder(tmp_path / f"without{number}", family, tensors=without)
        with pytest.raises(ValueError, match=f"has no tensor .*{name.split('.', 1)[1]}$"):
            load(folder, family)
        shape = tensors[name].shape
        longer = {**tensors, name: np.zeros((shape[0] + 1, *shape[1:]), np.float32)}
        folder = write_folder(tmp_path / f"longer{number}", family, tensors=longer)
        with pytest.raises(ValueError, match=f"tensor {name} in .* has shape .* calls for"):
            load(folder, family)


def test_tensors_of_integers(tmp_path: Path) -> None:
    tensors: dict[str, Any] = tensors_of(config_of("llama"))
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.int32)
    with pytest.raises(ValueError, match="tensor model.norm.weight in .* is I32; BF16, F16, F32"):
        load(write_folder(tmp_path, tensors=tensors), "llama")


def test_files_that_are_cut_short(tmp_path: Path) -> None:
    file = write_folder(tmp_path) / "model.safetensors"
    data = file.read_bytes()
    for size in (0, 5, 100, len(data) - 1):
        file.write_bytes(data[:size])
        with pytest.raises(ValueError, match="is not a safetensors file, or not whole"):
            load(tmp_path, "llama")


def test_what_is_missing(tmp_path: Path) -> None:
    for kind in (Llama, Gpt):
        with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
            kind.from_folder(tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError, match="no config.json in "):
            kind.from_folder(tmp_path)
    (write_folder(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no model.safetensors in "):
        load(tmp_path, "llama")


def test_damaged_shards(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, "llama")
    index = folder / "model.safetensors.index.json"
    good = json.loads(index.read_text(encoding="utf-8"))
    for bad in ({}, {"weight_map": [1]}, {"weight_map": {"a": 1}}):
        index.write_text(json.dumps(bad), encoding="utf-8")
        with pytest.raises(ValueError, match="has no weight_map of tensors to files"):
            load(folder, "llama")
    index.write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}), encoding="utf-8")
    with pytest.raises(ValueError, match="names a file outside its folder: '../x.safetensors'"):
        load(folder, "llama")
    index.write_text(json.dumps(good), encoding="utf-8")
    shard = folder / "model-1.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match="model-1.safetensors is not a safetensors file, or not wh"
    ):
        load(folder, "llama")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="no model-1.safetensors in "):
        load(folder, "llama")
