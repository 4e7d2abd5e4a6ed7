"""Scaled rotary positions in whole models: against transformers, and each row by its own length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from numattn.models import Llama
from tiny_decoders import LLAMA3_SCALING, YARN_SCALING, load, random_ids, write_folder
from tolerance import assert_same_bits

TRAINED, PROMPT, TOKENS = 32, 20, 84  # the trained length is passed on the way

LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": TRAINED,
    "factor": 4.0,
}
SCALINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "dynamic": (
        "llama",
        {
            "rope_scaling": {"rope_type": "dynamic", "factor": 4.0},
            "max_position_embeddings": TRAINED,
        },
    ),
    "yarn": ("llama", {"rope_scaling": YARN_SCALING}),
    "yarn_magnitudes": (
        "llama",
        {"rope_scaling": {**YARN_SCALING, "mscale": 0.8, "mscale_all_dim": 0.5, "beta_fast": 16}},
    ),
    "yarn_attention_factor": ("qwen2", {"rope_scaling": {**YARN_SCALING, "attention_factor": 0.7}}),
    "llama3": ("mistral", {"rope_scaling": LLAMA3_SCALING, "rope_theta": 5e5}),
    "longrope": ("llama", {"rope_scaling": LONGROPE}),
    # As Phi-4-mini: part of each head turns, and the factor is the ratio of the two lengths.
    "longrope_partial": (
        "phi3",
        {
            "original_max_position_embeddings": TRAINED,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": LONGROPE["short_factor"][:2],
                "long_factor": LONGROPE["long_factor"][1:3],
            },
        },
    ),
}


@pytest.fixture(scope="module", params=SCALINGS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, changes = SCALINGS[name]
    return write_folder(tmp_path_factory.mktemp(name), family, changes)


@pytest.fixture(scope="module")
def model(name: str, folder: Path) -> Llama:
    loaded = load(folder, SCALINGS[name][0])
    assert isinstance(loaded, Llama)
    return loaded


def in_parts(ids: NDArray[Any], read: Any) -> NDArray[Any]:
    """Return the logits of a prompt and then token by token; `read` keeps what it read before."""
    cuts = [0, *range(PROMPT, TOKENS + 1)]
    return np.concatenate(
        [read(ids[:, start:end]) for start, end in zip(cuts, cuts[1:], strict=False)], axis=1
    )


@pytest.mark.parametrize("way", ["at once", "in parts"])
def test_logits_are_those_of_transformers(
    folder: Path, model: Llama, way: str, rng: np.random.Generator
) -> None:
    """In float64; within twice the error of its own float32 logits."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    ids = random_ids(rng, 1, TOKENS)

    def theirs(dtype: Any) -> NDArray[Any]:
        other = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="eager"
        ).eval()
        cache = transformers.DynamicCache()

        def read(part: NDArray[Any]) -> NDArray[Any]:
            with torch.no_grad():
                logits = other(torch.tensor(part), past_key_values=cache, use_cache=True).logits
            result: NDArray[Any] = logits.double().numpy()
            return result

        return read(ids) if way == "at once" else in_parts(ids, read)

    exact, single = theirs(torch.float64), theirs(torch.float32)
    for cache in (model.new_cache(1), model.new_paged_cache(1, pages=11, page_size=8)):

        def ours(part: NDArray[Any], cache: Any = cache) -> NDArray[Any]:
            return model(part, cache=cache)

        got = ours(ids) if way == "at once" else in_parts(ids, ours)
        error, bound = np.linalg.norm(got - exact), 2 * np.linalg.norm(single - exact)
        assert error <= bound, f"error {error:.3g}, bound {bound:.3g}"


def test_the_scaling_counts(model: Llama, folder: Path, name: str, tmp_path: Path) -> None:
    """Or else the tests beside this one would hold whatever it did."""
    family, changes = SCALINGS[name]
    others = {key: None for key in changes if key == "rope_scaling"}
    plain = load(write_folder(tmp_path, family, others), family)
    ids = random_ids(np.random.default_rng(0), 1, TOKENS)
    logits = model(ids)
    assert np.linalg.norm(logits - plain(ids)) > 0.01 * np.linalg.norm(logits)


def test_a_row_is_scaled_by_its_own_length(model: Llama, rng: np.random.Generator) -> None:
    """Whatever stands beside it in the batch, and in columns of padding."""
    ids, lengths = random_ids(rng, 3, 50), np.array([50, 31, 3])
    together = model(ids, lengths)
    cache = model.new_cache(3)
    model(ids, lengths, cache=cache)
    step = model(ids[:, :1], cache=cache)
    for row in range(3):
        own, one, real = model.new_cache(1), slice(row, row + 1), slice(lengths[row])
        alone = model(ids[one], lengths[one], cache=own)
        assert_same_bits(alone[:, real], together[one, real])
        assert_same_bits(model(ids[one, :1], cache=own), step[one])
