"""A Bert with weights stored in bfloat16, against the float64 computation and the naive one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

import naive_bert
from child import output_of
from numattn.models import Bert, installed_folder
from numattn.models.encoder.bert_config import BertConfig
from numattn.models.encoder.bert_layer import Workspace
from tiny_bert import CONFIG, SENTENCES, tensors_of, write_folder

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
Array = NDArray[Any]


class Compared:
    """A folder's model, and what it should compute for some sequences: exactly, and naively."""

    def __init__(self, folder: Path, sequences: list[Array]) -> None:
        self.folder, self.sequences = folder, sequences
        config = BertConfig.from_file(folder / "config.json")
        tensors = load_file(folder / "model.safetensors")
        self.exact, self.naive = (
            [naive_bert.run(tensors, config, ids, rounded) for ids in sequences]
            for rounded in (False, True)
        )

    def check(self, got: list[Array], part: int) -> None:
        """Check hidden states (part 0) or maps (part 1), all sequences together."""
        exact, naive = ([result[part] for result in side] for side in (self.exact, self.naive))
        error, bound = distance(got, exact), 1.15 * distance(naive, exact)
        assert error <= bound, f"error {error:.3g} exceeds {bound:.3g}"


def distance(got: list[Array], expected: list[Array]) -> float:
    parts = [np.linalg.norm(x - y) for x, y in zip(got, expected, strict=True)]
    return float(np.linalg.norm(parts))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    rng = np.random.default_rng(0)
    lengths = [*range(1, 25), 24, 24, 24, 24]
    sequences = [rng.integers(0, CONFIG["vocab_size"], length) for length in lengths]
    return Compared(write_folder(tmp_path_factory.mktemp("tiny")), sequences)


@pytest.fixture(scope="module")
def minilm() -> Compared:
    folder = installed_folder()
    texts = ["A cat sleeps.", "The recipe needs two eggs, and a little patience.", "Shares fell."]
    texts += ["How do I reset my password?", "I forgot my login, what now?"]
    token_lists = Bert.from_folder(folder).tokenize(texts).ids
    return Compared(folder, [np.array(tokens) for tokens in token_lists])


@pytest.fixture(params=["tiny", "minilm"])
def compared(request: pytest.FixtureRequest) -> Compared:
    found: Compared = request.getfixturevalue(request.param)
    return found


def padded(sequences: list[Array]) -> tuple[Array, Array]:
    lengths = np.array([ids.size for ids in sequences])
    batch = np.zeros((len(sequences), lengths.max()), np.int64)
    for row, ids in zip(batch, sequences, strict=True):
        row[: ids.size] = ids
    return batch, lengths


def test_the_exact_one_is_what_float32_computes(compared: Compared) -> None:
    """The comparison itself: without roundings it is the model, with them it is not."""
    model = Bert.from_folder(compared.folder)
    hidden = [model(ids[np.newaxis])[0] for ids in compared.sequences]
    exact = [x for x, _ in compared.exact]
    for got, expected in zip(hidden, exact, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    assert distance([x for x, _ in compared.naive], exact) > 100 * distance(hidden, exact)


def test_hidden_states(isa: str, compared: Compared) -> None:
    model = Bert.from_folder(compared.folder, dtype="bfloat16")
    hidden = model(*padded(compared.sequences))
    assert hidden.dtype == np.float32
    compared.check([x[: ids.size] for x, ids in zip(hidden, compared.sequences, strict=True)], 0)
    compared.check([model(ids[np.newaxis])[0] for ids in compared.sequences], 0)


def test_attention_maps(isa: str, compared: Compared) -> None:
    model = Bert.from_folder(compared.folder, dtype="bfloat16")
    maps = [model.attention_weights(ids) for ids in compared.sequences]
    assert all(x.dtype == np.float32 for x in maps)
    compared.check(maps, 1)


def test_embeddings(isa: str, compared: Compared) -> None:
    def pooled(results: list[tuple[Array, Array]]) -> list[Array]:
        means = [hidden.mean(axis=0) for hidden, _ in results]
        return [mean / np.linalg.norm(mean) for mean in means]

    model = Bert.from_folder(compared.folder, dtype="bfloat16")
    vectors = model.encode_tokens([ids.tolist() for ids in compared.sequences])
    assert vectors.dtype == np.float32
    exact, naive = pooled(compared.exact), pooled(compared.naive)
    error, bound = distance(list(vectors), exact), 1.15 * distance(naive, exact)
    assert error <= bound, f"error {error:.3g} exceeds {bound:.3g}"


def test_padding_does_not_reach_the_real_tokens(isa: str, tiny: Compared) -> None:
    model = Bert.from_folder(tiny.folder, dtype="bfloat16")
    ids, lengths = padded(tiny.sequences)
    real = np.arange(ids.shape[1]) < lengths[:, np.newaxis]
    other = np.where(real, ids, 7)
    np.testing.assert_array_equal(model(ids, lengths)[real], model(other, lengths)[real])


def test_what_lies_between_products_is_bfloat16(tiny: Compared) -> None:
    config = BertConfig.from_file(tiny.folder / "config.json")
    work = Workspace(21, config, BFLOAT16)
    assert work.x.dtype == np.float32
    for array in (work.qkv, work.query, work.context, work.context_heads, work.inner):
        assert array.dtype == BFLOAT16
    assert np.shares_memory(work.qkv, work.value) and np.shares_memory(work.qkv, work.inner)
    assert not np.shares_memory(work.qkv, work.context)


@pytest.mark.parametrize("dtype", ["bfloat16", ml_dtypes.bfloat16, BFLOAT16])
def test_names_of_bfloat16(tiny: Compared, dtype: Any) -> None:
    model = Bert.from_folder(tiny.folder, dtype=dtype)
    assert model.dtype == BFLOAT16
    named = Bert.from_folder(tiny.folder, dtype="bfloat16")
    np.testing.assert_array_equal(model.encode(SENTENCES), named.encode(SENTENCES))


@pytest.mark.parametrize("dtype", [None, "float32", np.float32])
def test_float32_is_the_default(tiny: Compared, dtype: Any) -> None:
    model = Bert.from_folder(tiny.folder, dtype=dtype)
    assert model.dtype == np.float32
    default = Bert.from_folder(tiny.folder)
    np.testing.assert_array_equal(model.encode(SENTENCES), default.encode(SENTENCES))


@pytest.mark.parametrize(
    ("dtype", "named"), [("float16", "float16"), (np.float64, "float64"), ("half ", "'half '")]
)
def test_other_dtypes_are_refused(tiny: Compared, dtype: Any, named: str) -> None:
    with pytest.raises(
        ValueError, match=f"dtype must be float32, bfloat16, int8 or w8a8, not {named}"
    ):
        Bert.from_folder(tiny.folder, dtype=dtype)


def test_weights_already_in_bfloat16_lose_nothing(tmp_path: Path) -> None:
    """Stored in bfloat16 or rounded before: the same model."""
    tensors = tensors_of(CONFIG)
    layers = {name for name in tensors if "encoder" in name and "LayerNorm" not in name}
    rounded = {
        name: value.astype(BFLOAT16).astype(np.float32)
        if name in layers and name.endswith("weight")
        else value
        for name, value in tensors.items()
    }
    first = Bert.from_folder(write_folder(tmp_path / "as", tensors=tensors), dtype="bfloat16")
    second = Bert.from_folder(write_folder(tmp_path / "before", tensors=rounded), dtype="bfloat16")
    np.testing.assert_array_equal(first.encode(SENTENCES), second.encode(SENTENCES))


def test_a_missing_ml_dtypes_is_said(tiny: Compared) -> None:
    script = """
        import sys
        sys.modules["ml_dtypes"] = None  # importing it fails
        from numattn.models import Bert
        print(Bert.from_folder(sys.argv[1]).dtype)
        try:
            Bert.from_folder(sys.argv[1], dtype="bfloat16")
        except ImportError as error:
            print(error)
    """
    assert output_of(script, str(tiny.folder)).splitlines() == [
        "float32",
        "bfloat16 needs ml_dtypes: pip install ml_dtypes",
    ]
