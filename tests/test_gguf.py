"""Models from GGUF files: bit by bit those of folders with the same, dequantised, weights."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn.models import Gpt, Llama, load
from numattn.position import Rope
from tiny_decoders import (
    LLAMA3_SCALING,
    VOCABULARY,
    YARN_SCALING,
    class_of,
    random_ids,
    write_folder,
)
from tolerance import assert_same_bits

pytest.importorskip("gguf")
tiny_gguf = pytest.importorskip("tiny_gguf")  # which imports it
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q6_K")


def write(folder: Path, family: str, kind: str = "F32", **options: Any) -> tuple[Path, Path]:
    """Write a file, and a folder of the same model."""
    folder.mkdir(exist_ok=True)
    path = folder / "model.gguf"
    config, tensors = tiny_gguf.write_gguf(path, family, tiny_gguf.KINDS[kind], **options)
    if family == "llama3" and "more" not in options:
        config["rope_scaling"] = None  # which a file has in a tensor
    return path, write_folder(folder / "folder", family, config, tensors)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("family", tiny_gguf.FAMILIES)
def test_families(tmp_path: Path, family: str, dtype: str, rng: np.random.Generator) -> None:
    path, folder = write(tmp_path, family, "Q8_0")
    model, other = load(path, dtype=dtype), load(folder, dtype=dtype)
    assert type(model) is type(other) is class_of(family)
    ids = random_ids(rng, 2, 20)
    assert_same_bits(model(ids), other(ids))
    cache = model.new_cache(2)
    parts = [model(part, cache=cache) for part in (ids[:, :13], ids[:, 13:])]
    assert np.concatenate(parts, axis=1).shape == (2, 20, VOCABULARY)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(tmp_path: Path, kind: str, rng: np.random.Generator) -> None:
    path, folder = write(tmp_path, "llama", kind)
    ids = random_ids(rng, 1, 9)
    logits = load(path, dtype="float32")(ids)
    assert np.isfinite(logits).all() and logits.std() > 0.01
    assert_same_bits(logits, load(folder)(ids))


def layers_of(model: Any) -> dict[str, str]:
    """Return how a Llama's first layer stores its weights."""
    layer = model._layers[0]
    made = {"qkv": layer.qkv, "output": layer.output, "head": model._head}
    if hasattr(layer.feed_forward, "gate"):
        made |= {part: getattr(layer.feed_forward, part) for part in ("gate", "up", "down")}
    parts = {name: getattr(linear, "layers", (linear,)) for name, linear in made.items()}
    return {name: " ".join(part.dtype for part in each) for name, each in parts.items()}


def assert_alike(logits: Any, expected: Any) -> None:
    """The same weights, whose products are summed in another order."""
    assert np.linalg.norm(logits - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("F32", "F16", "BF16")])
def test_weights_stay_as_they_are(tmp_path: Path, kind: str, rng: np.random.Generator) -> None:
    path, folder = write(tmp_path, "llama", kind)
    model, ids = load(path), random_ids(rng, 1, 9)
    stored = {"Q5_1": "float32"} | dict.fromkeys(("Q8_0", "Q6_K", "Q5_0"), "groups8")
    assert set(layers_of(model).values()) == {stored.get(kind, "groups4")}
    assert_alike(model(ids), load(folder)(ids))
    assert_same_bits(pickle.loads(pickle.dumps(model))(ids), model(ids))


@pytest.mark.parametrize("family", [f for f in tiny_gguf.FAMILIES if f != "gpt2"])
def test_families_whose_weights_stay(tmp_path: Path, family: str, rng: np.random.Generator) -> None:
    path, folder = write(tmp_path, family, "Q4_0")
    model, ids = load(path), random_ids(rng, 2, 20)
    assert set(layers_of(model).values()) == {"groups4"}
    assert_alike(model(ids), load(folder)(ids))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("value", ["Q6_K", "F16", "Q8_0"])
def test_parts_that_are_quantised_otherwise(
    tmp_path: Path, family: str, value: str, rng: np.random.Generator
) -> None:
    """As llama.cpp's mixtures give values and some others more bits; and where one is not."""
    others = {"attn_v": tiny_gguf.KINDS[value], "ffn_down": tiny_gguf.KINDS.Q6_K}
    path, folder = write(tmp_path, family, "Q4_K", others=others)
    model, ids = load(path), random_ids(rng, 2, 20)
    stored = layers_of(model)
    mixed = "float32" if value == "F16" else "groups4 groups4 groups8"
    assert (stored["qkv"], stored["output"], stored["down"]) == (mixed, "groups4", "groups8")
    assert_alike(model(ids), load(folder)(ids))
    whole = model(ids)
    cache = model.new_cache(2)
    parts = [model(part, cache=cache) for part in (ids[:, :13], ids[:, 13:])]
    assert_alike(np.concatenate(parts, axis=1), whole)


def test_scales_that_are_no_numbers(tmp_path: Path) -> None:
    """Are those of the file: nothing is lost, and nothing else is spoilt."""
    path, _ = write(tmp_path, "llama", "Q8_0")
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        reader = tiny_gguf.gguf.GGUFReader(path)
        (tensor,) = (each for each in reader.tensors if each.name == "output.weight")
        offset = int(tensor.data_offset)
        del reader, file
    data[offset : offset + 2] = np.array([np.nan], np.float16).tobytes()
    path.write_bytes(data)
    logits = load(path)([[1, 2, 3]])
    assert np.isnan(logits[..., 0]).all() and np.isfinite(logits[..., 1:]).all()


def test_the_frequencies_of_llama_3(tmp_path: Path, rng: np.random.Generator) -> None:
    """As the converter computes them: divisors in float32."""
    plain, scaled = (Rope(64, scaling=scaling).frequencies() for scaling in (None, LLAMA3_SCALING))
    divisors = {"rope_freqs.weight": (plain / scaled).astype(np.float32)}
    path, folder = write(tmp_path, "llama3", more=divisors)
    ids = random_ids(rng, 1, 60)
    logits, expected = load(path)(ids), load(folder)(ids)
    assert np.linalg.norm(logits - expected) < 1e-5 * np.linalg.norm(expected)
    without = load(write(tmp_path / "without", "llama3")[0])(ids)
    assert np.linalg.norm(without - expected) > 1e-3 * np.linalg.norm(expected)


def test_the_frequencies_of_phi_3(tmp_path: Path, rng: np.random.Generator) -> None:
    short, long = ((np.linspace(1, end, 16)).astype(np.float32) for end in (2, 30))
    more = {"rope_factors_short.weight": short, "rope_factors_long.weight": long}
    sizes = {"original_max_position_embeddings": 16}
    path, folder = write(
        tmp_path, "phi3", more=more, config=sizes,
        metadata={"phi3.rope.scaling.attn_factor": 1.25, "phi3.attention.sliding_window": 5},
    )  # fmt: skip
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["sliding_window"] = 5
    config["rope_scaling"] = {
        "type": "longrope", "attention_factor": 1.25,
        "short_factor": short.tolist(), "long_factor": long.tolist(),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model, other = load(path), load(folder)
    assert model.switch_length == 16
    for length in (9, 40):
        ids = random_ids(rng, 1, length)
        assert_same_bits(model(ids), other(ids))


def test_yarn(tmp_path: Path, rng: np.random.Generator) -> None:
    path, folder = write(
        tmp_path, "qwen2",
        metadata={
            "qwen2.rope.scaling.type": "yarn", "qwen2.rope.scaling.factor": 4.0,
            "qwen2.rope.scaling.original_context_length": 32,
        },
    )  # fmt: skip
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["rope_scaling"] = YARN_SCALING
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    ids = random_ids(rng, 1, 50)
    assert_same_bits(load(path)(ids), load(folder)(ids))


def test_what_gemma_2_leaves_out(tmp_path: Path) -> None:
    """Is what it is in the model that was published, to llama.cpp as to transformers."""
    path, _ = write(tmp_path, "gemma2")
    data = path.read_bytes()
    for key in (b"attention.sliding_window", b"attn_logit_softcapping", b"final_logit_softcapping"):
        data = data.replace(b"gemma2." + key, b"gemmaX." + key)
    path.write_bytes(data)
    config = load(path).config
    assert config.windows == (4095, None)
    assert (config.score_softcap, config.logit_softcap) == (50.0, 30.0)


def test_a_projection_of_its_own(tmp_path: Path, rng: np.random.Generator) -> None:
    """qwen2 has none here, llama does; either is found by its tensor."""
    for family in ("qwen2", "llama"):
        path, _ = write(tmp_path / family, family)
        model = load(path)
        assert model.config.tied == (family == "qwen2")


def test_by_the_class(tmp_path: Path) -> None:
    path, _ = write(tmp_path, "qwen3", "Q8_0")
    assert_same_bits(Llama.from_file(path)([[1, 2]]), load(path)([[1, 2]]))
    path, _ = write(tmp_path / "gpt2", "gpt2")
    with pytest.raises(ValueError, match="model.gguf holds a Gpt, and not a Llama"):
        Llama.from_file(path)
    assert type(load(path)) is Gpt


def test_a_file_without_its_ending(tmp_path: Path) -> None:
    """As content-addressed stores name files."""
    path, _ = write(tmp_path, "llama")
    other = path.rename(tmp_path / "sha256-0123")
    assert type(load(str(other))) is Llama


def test_the_only_file_of_a_folder(tmp_path: Path) -> None:
    path, _ = write(tmp_path / "a", "llama")
    (tmp_path / "b").mkdir()
    first = path.rename(tmp_path / "b" / "first.gguf")
    assert_same_bits(load(tmp_path / "b")([[1, 2]]), load(first)([[1, 2]]))
    (tmp_path / "b" / "second.gguf").write_bytes(first.read_bytes())
    with pytest.raises(FileNotFoundError, match="no config.json in "):
        load(tmp_path / "b")


def test_models_pickle(tmp_path: Path) -> None:
    path, _ = write(tmp_path, "llama", "Q4_0")
    model = load(path)
    path.unlink()
    other = pickle.loads(pickle.dumps(model))
    assert_same_bits(other([[1, 2, 3]]), model([[1, 2, 3]]))
    assert other.text_source.end_tokens == model.text_source.end_tokens == frozenset()


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["F32", "Q4_0"])
def test_files_that_are_cut_short(tmp_path: Path, kind: str) -> None:
    path, _ = write(tmp_path, "llama", kind)
    data = path.read_bytes()
    for size in (0, 3, 4, 8, 20, 24, 60, 300, 700, 2000, 5000, len(data) // 2, len(data) - 32):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match="model.gguf is not a GGUF file, or not whole"):
            load(path)


def test_files_with_damaged_bytes(tmp_path: Path, rng: np.random.Generator) -> None:
    """Any byte before the numbers: the same model, another one, or a clear error; and soon."""
    path, _ = write(tmp_path, "qwen2", "Q8_0")
    data = bytearray(path.read_bytes())
    failures = 0
    for place in rng.integers(0, 1500, 120).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            load(path)
        except ValueError as error:
            assert "model.gguf" in str(error)
            failures += 1
    assert failures > 40


def test_lists_in_lists_without_end(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a"
    path.write_bytes(head + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000)
    with pytest.raises(ValueError, match="model.gguf is not a GGUF file, or not whole"):
        load(path)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (
            "llama",
            {"metadata": {"split.count": 3}},
            "is one of 3 files of a model, and its name is",
        ),
        ("llama", {"metadata": {"split.count": "x"}}, "is one of 'x' files of a model"),
        ("llama", {"metadata": {"general.type": "adapter"}}, "general.type 'adapter' is not supp"),
        ("llama", {"metadata": {"llama.expert_count": 8}}, "has no expert_used_count"),
        ("llama", {"metadata": {"llama.attention.scale": 0.5}}, "llama.attention.scale 0.5 is not"),
        (
            "llama",
            {"metadata": {"llama.rope.scaling.type": "longrope"}},
            "rope.scaling.type 'longrope' with attn_factor 1.0 is not supported",
        ),
        ("llama", {"more": {"v.patch.weight": np.ones(3, np.float32)}}, "does not use: v.patch.we"),
        ("qwen2", {"config": {"head_dim": 63}}, "dim must be an even number"),
        ("gpt2", {"metadata": {"gpt2.rope.freq_base": 1e4}}, "gpt2.rope.freq_base 10000.0 is not"),
    ],
)
def test_what_is_refused(tmp_path: Path, family: str, options: Any, message: str) -> None:
    path = tmp_path / "model.gguf"
    tiny_gguf.write_gguf(path, family, **options)
    with pytest.raises(ValueError, match=message):
        load(path)


def split_files(folder: Path, size: int = 5) -> list[Path]:
    """Write a model in several files, and beside them a folder and a file of the same model."""
    config, tensors = tiny_gguf.write_gguf(folder / "parts.gguf", "llama", split=size)
    tiny_gguf.write_gguf(folder / "whole.gguf", "llama")
    (folder / "whole.gguf").rename(folder / "whole")
    write_folder(folder / "folder", "llama", config, tensors)
    return sorted(folder.glob("parts-*.gguf"))


def test_a_model_in_several_files(tmp_path: Path) -> None:
    """By any of them, or by the folder that has nothing else."""
    files = split_files(tmp_path)
    assert len(files) == 5
    expected = load(tmp_path / "folder")([[1, 2, 3]])
    for place in (files[0], files[3], tmp_path):
        assert_same_bits(load(place)([[1, 2, 3]]), expected)
    assert_same_bits(load(tmp_path / "whole")([[1, 2, 3]]), expected)
    assert load(files[2]).text_source.path == files[0]  # which has the tokenizer


def test_several_files_that_do_not_belong_together(tmp_path: Path) -> None:
    files = split_files(tmp_path)
    other = files[1].with_name("other.gguf")
    files[1].rename(other)
    with pytest.raises(FileNotFoundError, match=r"no parts-00002-of-00005\.gguf in"):
        load(files[0])
    files[1].write_bytes(files[2].read_bytes())
    with pytest.raises(ValueError, match=r"00002.*split.no and split.count are \(2, 5\), and not"):
        load(files[0])
    data = other.read_bytes()
    files[1].write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"parts-00002-of-00005\.gguf is not a GGUF file, or not"):
        load(files[4])
    files[1].write_bytes(data)
    third = files[2].read_bytes()
    files[2].write_bytes(third.replace(b"blk.1.attn_q.", b"blk.0.attn_q."))
    with pytest.raises(ValueError, match=r"tensor blk.0.attn_q.weight is in .*00003.* before it"):
        load(files[0])
    files[2].write_bytes(third)
    other.write_bytes(data)
    for name in ("other.gguf", "parts-00000-of-00005.gguf", "parts-00006-of-00005.gguf"):
        other = other.rename(other.with_name(name))
        with pytest.raises(ValueError, match=rf"{name} is one of 5 files of a model, and its name"):
            load(other)
    files[1].write_bytes(data)
    head = files[0].read_bytes()
    place = head.index(b"split.tensors.count") + len("split.tensors.count") + 4
    files[0].write_bytes(head[:place] + struct.pack("<i", 99) + head[place + 4 :])
    with pytest.raises(ValueError, match="the parts after it have 21 tensors, and not 99"):
        load(files[0])


def test_experts_that_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    tiny_gguf.write_gguf(path, "mixtral", tiny_gguf.KINDS.Q8_0)
    data = path.read_bytes()
    place = data.index(b"llama.expert_count") + len("llama.expert_count") + 4
    for count, message in (
        (4, "tensor blk.0.ffn_gate_exps.weight|tensor blk.0.ffn_gate_inp.weight"),
        (2**31, "must be at most"),
    ):
        path.write_bytes(data[:place] + struct.pack("<I", count) + data[place + 4 :])
        with pytest.raises(ValueError, match=message):
            load(path)
    path.write_bytes(data.replace(b"blk.1.ffn_up_exps", b"blk.1.ffn_up_exqs"))
    with pytest.raises(ValueError, match="has no tensor blk.1.ffn_up_exps.weight"):
        load(path)


def test_keys_that_change_nothing_where_they_are_0(tmp_path: Path) -> None:
    path, folder = write(tmp_path, "llama", metadata={"llama.expert_count": 0})
    assert_same_bits(load(path)([[1, 2]]), load(folder)([[1, 2]]))


def test_other_architectures(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = tiny_gguf.gguf.GGUFWriter(path, "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match="general.architecture 'mamba' is not supported; supporte"):
        load(path)


def test_tensors_that_are_missing_or_of_another_shape(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    tiny_gguf.write_gguf(path, "llama")
    for old, new, message in (
        (b"blk.1.ffn_down.weight", b"blk.1.ffn_dawn.weight", "no tensor blk.1.ffn_down.weight"),
        (b"output_norm.weight", b"output_narm.weight", "no tensor output_norm.weight"),
        (b"token_embd.weight", b"token_umbd.weight", "has no tensor token_embd.weight"),
        (b"llama.block_count", b"llama.bluck_count", "llama.bluck_count 2 is not supported"),
    ):
        damaged = tmp_path / "damaged.gguf"
        damaged.write_bytes(path.read_bytes().replace(old, new))
        with pytest.raises(ValueError, match=message):
            load(damaged)
