"""Encoders of every family, beside stored results of transformers; ragged batches; folders."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from numattn import models
from numattn.models import load
from numattn.models.encoder.families import ENCODERS
from tiny_bert import SENTENCES
from tiny_encoders import CASES, CLASSES, FAMILIES, LENGTHS, TASKS, golden_ids, write_folder
from tolerance import assert_same_bits

# Hidden states and logits have components of the order 1.
AGREEMENT = 1e-5
GOLDEN = Path(__file__).parent / "data" / "encoders_golden.npz"
MASK = np.arange(LENGTHS.max()) < LENGTHS[:, np.newaxis]


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    with np.load(GOLDEN) as file:
        return dict(file)


def described(golden: dict[str, Any], stem: str, number: int = 0, task: str = TASKS[0]) -> Any:
    return json.loads(str(golden[f"{stem}/{number}/{task}/folder"]))


def made(
    golden: dict[str, Any], folder: Path, stem: str, number: int = 0, task: str = TASKS[0],
    **changes: Any,
) -> Any:  # fmt: skip
    return load(write_folder(folder, **described(golden, stem, number, task), **changes))


def types_of(model: Any, types: Any) -> Any:
    return types if model.config.type_vocab_size > 1 else None


@pytest.mark.parametrize(("stem", "number"), CASES)
def test_hidden_states(
    isa: str, tmp_path: Path, golden: dict[str, Any], stem: str, number: int
) -> None:
    model = made(golden, tmp_path, stem, number).encoder
    assert type(model) is getattr(models, CLASSES.get(stem, stem))
    ids, types = golden_ids(stem)
    found = model(ids, LENGTHS, token_type_ids=types_of(model, types))
    expected = golden[f"{stem}/{number}/{TASKS[0]}/hidden"]
    assert np.abs(expected[MASK]).max() > 1 and not found[~MASK].any()
    np.testing.assert_allclose(found[MASK], expected[MASK], rtol=0, atol=AGREEMENT)


@pytest.mark.parametrize("stem", FAMILIES)
def test_a_batch_is_its_rows(tmp_path: Path, golden: dict[str, Any], stem: str) -> None:
    model = made(golden, tmp_path, stem).encoder
    ids, types = golden_ids(stem)
    whole = model(ids, LENGTHS, token_type_ids=types_of(model, types))
    for row, length in enumerate(LENGTHS.tolist()):
        own = None if types_of(model, types) is None else types[row : row + 1, :length]
        alone = model(ids[row : row + 1, :length], token_type_ids=own, num_threads=1)
        assert_same_bits(whole[row, :length], alone[0])
    assert model(np.zeros((2, 0), np.int64)).shape == (2, 0, 32)


@pytest.mark.parametrize("stem", FAMILIES)
def test_texts_and_maps(tmp_path: Path, golden: dict[str, Any], stem: str) -> None:
    model = made(golden, tmp_path, stem).encoder
    together = model.encode(SENTENCES)
    alone = np.concatenate([model.encode([text]) for text in SENTENCES])
    assert_same_bits(together, alone)
    assert_same_bits(pickle.loads(pickle.dumps(model)).encode(SENTENCES), together)
    maps = model.attention_weights([2, 7, 5, 9, 3])
    assert maps.shape == (len(model._layers), 4, 5, 5)
    # A sum of 5 float32 numbers that add up to 1 is off by at most 5 halves of a last place.
    np.testing.assert_allclose(maps.sum(axis=-1), 1, rtol=0, atol=5 * 2.0**-24)
    assert_same_bits(model.attention_weights([2, 7, 5, 9, 3], 1, 2, [4, 0]), maps[1, 2, [4, 0]])


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("stem", FAMILIES)
def test_other_storage(tmp_path: Path, golden: dict[str, Any], stem: str, dtype: str) -> None:
    plain = made(golden, tmp_path, stem)
    stored = load(tmp_path, dtype=dtype)
    assert stored.encoder.dtype == dtype
    exact, found = (model.encoder.encode(SENTENCES[:1])[0] for model in (plain, stored))
    assert not np.array_equal(exact, found)
    # The cosine of vectors whose parts are off by some hundredths of themselves.
    assert exact @ found > 0.999


@pytest.mark.parametrize("stem", FAMILIES)
def test_every_tensor_is_used(tmp_path: Path, golden: dict[str, Any], stem: str) -> None:
    parts = described(golden, stem)
    shapes = parts["shapes"]
    layer = next(name for name in shapes if ".0." in name)
    more = {**shapes, layer.replace(".0.", ".0.lora."): [2]}
    with pytest.raises(ValueError, match=r"does not use: .*\.0\.lora\."):
        load(write_folder(tmp_path / "more", parts["config"], more))
    for name in shapes:
        fewer = {key: shape for key, shape in shapes.items() if key != name}
        with pytest.raises(ValueError, match=r"has no tensor|layers .* calls for"):
            load(write_folder(tmp_path / "fewer", parts["config"], fewer))


LAYERED = {"full_attention": {"rope_type": "default"}}


@pytest.mark.parametrize(
    ("stem", "changes", "message"),
    [
        ("DistilBert", {"n_heads": 5}, "dim 32 does not divide into 5 heads"),
        ("DistilBert", {"activation": "mish"}, "activation 'mish' is not supported"),
        ("DistilBert", {"n_layers": 2}, r"has 3 layers .* calls for 2"),
        ("Albert", {"num_hidden_groups": 4}, "num_hidden_groups 4 is more than there are layers"),
        ("Albert", {"inner_group_num": 2}, r"calls for 2 \(inner_group_num\)"),
        ("Albert", {"embedding_size": 8}, r"shape \(22, 16\)"),
        ("MPNet", {"relative_attention_num_buckets": 16}, "relative_attention_num_buckets 16 is"),
        ("MPNet", {"pad_token_id": 0}, "pad_token_id 0 is not supported"),
        ("Electra", {"is_decoder": True}, "is_decoder True is not supported"),
        ("ModernBert", {"layer_types": ["full_attention"]}, "layer_types must be 3 of"),
        ("ModernBert", {"classifier_pooling": "max"}, "classifier_pooling 'max' is not supported"),
        ("ModernBert", {"rope_parameters": {"full_attention": 3}}, "full_attention must be an obj"),
        ("ModernBert", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
         "config.json: .*rope_parameters by type of layer"),
        ("NomicBert", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
         "depend on the length of a text"),
        ("NomicBert", {"head_dim": 4}, "head_dim 4 is not supported"),
        ("Gte", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "4 of 8 elements of a head"),
        ("Gte", {"auto_map": {"AutoModel": "modeling.NewModel"}}, "names code of the folder's own"),
        ("Gte", {"model_type": "new"}, r"model_type 'new' is not supported; .*nomic_bert"),
    ],
)  # fmt: skip
def test_a_setting_that_is_refused(
    tmp_path: Path, golden: dict[str, Any], stem: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        made(golden, tmp_path, stem, **changes)


def test_types_where_tokens_have_none(tmp_path: Path, golden: dict[str, Any]) -> None:
    model = made(golden, tmp_path, "DistilBert").encoder
    with pytest.raises(ValueError, match="token_type_ids are given, but .* no types"):
        model([[1, 2]], token_type_ids=[[0, 0]])


PUBLISHED = {
    "activation_function": "swiglu", "n_embd": 32, "n_head": 4, "n_layer": 3, "n_inner": 48,
    "n_positions": 24, "layer_norm_epsilon": 1e-12, "rotary_emb_base": 1000.0, "causal": False,
    "prenorm": False, "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False,
    "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_scaling_factor": None,
    "model_type": "nomic_bert", "vocab_size": 22, "type_vocab_size": 2, "use_rms_norm": False,
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    "architectures": ["NomicBertModel"],
}  # fmt: skip


def test_nomic_bert_as_it_is_published(tmp_path: Path, golden: dict[str, Any]) -> None:
    parts = described(golden, "NomicBert")
    plain = load(write_folder(tmp_path / "plain", **parts)).encoder
    names = {name: shape for name, shape in parts["shapes"].items() if "classifier" not in name}
    model = load(write_folder(tmp_path / "published", PUBLISHED, names))
    assert_same_bits(model.encode(SENTENCES), plain.encode(SENTENCES))
    others = {
        "causal": True,
        "rotary_scaling_factor": 2.0,
        "rotary_emb_fraction": 0.5,
        "activation_function": "gelu",
        "mlp_fc1_bias": True,
    }
    for name, value in others.items():
        with pytest.raises(ValueError, match=f"config.json: {name}"):
            load(write_folder(tmp_path / name, PUBLISHED, names, **{name: value}))


def test_a_folder_without_model_type(tmp_path: Path, golden: dict[str, Any]) -> None:
    for stem in FAMILIES:
        model = made(golden, tmp_path / stem / "a", stem, model_type=None)
        assert type(model.encoder) is getattr(models, CLASSES.get(stem, stem))
        if stem in ("NomicBert", "Gte"):  # whose tensors have no names of their own
            continue
        gone = {"model_type": None, "architectures": None}
        model = made(golden, tmp_path / stem / "b", stem, **gone)
        assert type(model) is getattr(models, CLASSES.get(stem, stem))


def test_buffers_that_a_file_may_have(tmp_path: Path, golden: dict[str, Any]) -> None:
    for stem, name in (("NomicBert", "nomic_bert.encoder.layers.0.attn.rotary_emb.inv_freq"),
                       ("Gte", "gte.embeddings.rotary_emb.inv_freq"),
                       ("Albert", "albert.embeddings.position_ids"),
                       ("DistilBert", "vocab_projector.bias")):  # fmt: skip
        parts = described(golden, stem)
        load(write_folder(tmp_path / stem, parts["config"], {**parts["shapes"], name: [4]}))


def test_a_model_in_a_folder_of_its_own(tmp_path: Path, golden: dict[str, Any]) -> None:
    plain = load(write_folder(tmp_path / "0_Transformer", **described(golden, "MPNet"))).encoder
    kinds = {"0_Transformer": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": place, "type": f"sentence_transformers.models.{kind}"}
               for place, kind in kinds.items()]  # fmt: skip
    (tmp_path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
    model = load(tmp_path)
    assert type(model) is models.MPNet
    assert_same_bits(model.encode(SENTENCES), plain.encode(SENTENCES))


def test_a_family_that_nothing_tells(tmp_path: Path, golden: dict[str, Any]) -> None:
    gone = {"model_type": None, "architectures": ["Model"]}
    with pytest.raises(ValueError, match="has no model_type, and neither architectures nor the na"):
        made(golden, tmp_path, "Gte", **gone)


def test_a_class_reads_its_own_families(tmp_path: Path, golden: dict[str, Any]) -> None:
    folder = write_folder(tmp_path, **described(golden, "Electra"))
    for kind in ENCODERS:
        if kind is not models.Electra:
            with pytest.raises(ValueError, match="model_type 'electra' is not supported"):
                kind.from_folder(folder)
    assert type(models.Electra.from_folder(folder)) is models.Electra
