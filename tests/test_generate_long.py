"""Texts that outgrow the length that a model was trained with: as if read anew, in any parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from numattn.models import Llama
from test_decoders_scaled import LONGROPE
from tiny_decoders import load, random_ids, write_folder

SWITCH = 16
LONG = {**LONGROPE, "original_max_position_embeddings": SWITCH}
HALF = {name: LONG[name][1:3] for name in ("short_factor", "long_factor")}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"rope_scaling": LONG}),
    "phi3": (
        "phi3",
        {
            "rope_scaling": {**LONG, **HALF},
            "original_max_position_embeddings": SWITCH,
            "sliding_window": 9,
        },
    ),
}


def read(folder: Path, name: str) -> Llama:
    family, changes = MODELS[name]
    model = load(write_folder(folder, family, changes), family)
    assert isinstance(model, Llama)
    return model


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    return read(tmp_path_factory.mktemp("long"), request.param)


def read_anew(model: Llama, prompts: list[list[int]], steps: int) -> list[list[int]]:
    """Return greedy texts, of which each token is found by reading all before it at once."""
    texts = []
    for prompt in prompts:
        text = list(prompt)
        for _ in range(steps):
            text.append(int(model([text], only_last=True)[0].argmax()))
        texts.append(text[len(prompt) :])
    return texts


def prompts_of(rng: np.random.Generator) -> list[list[int]]:
    """Some that grow beyond the switch, at several steps; at it; and beyond from the start."""
    return [random_ids(rng, size).tolist() for size in (11, 2, SWITCH, 15, SWITCH + 1, 25)]


def differs_without_switch(model: Llama, prompts: list[list[int]], expected: list[Any]) -> bool:
    """Whether keys that are kept as they were first turned would give other texts."""
    for prompt, text in zip(prompts, expected, strict=True):
        cache = model.new_cache(1)
        logits = model([prompt], cache=cache, only_last=True)
        for token in text:
            if token != logits[0].argmax():
                return True
            logits = model([[token]], cache=cache, only_last=True)
    return False


@pytest.mark.parametrize("chunk", [None, 1, 5, 40])
def test_longrope(model: Llama, chunk: int | None, rng: np.random.Generator) -> None:
    assert model.switch_length == SWITCH
    prompts = prompts_of(rng)
    expected = read_anew(model, prompts, 12)
    assert differs_without_switch(model, prompts, expected)
    assert model.generate(prompts, 12, chunk=chunk) == expected
    for cache in (model.new_cache(6), model.new_paged_cache(6, pages=70, page_size=4)):
        assert model.generate(prompts, 12, cache=cache, chunk=chunk) == expected
        assert cache.lengths.tolist() == [len(prompt) + 11 for prompt in prompts]
        last = [[text[-1]] for text in expected]
        again = [int(row.argmax()) for row in model(last, cache=cache, only_last=True)]
        assert again == [text[12] for text in read_anew(model, prompts, 13)]


def test_a_text_that_stops_before_the_switch(model: Llama, rng: np.random.Generator) -> None:
    prompts = prompts_of(rng)
    expected = read_anew(model, prompts, 12)
    stop = expected[0][2]
    cut = [text[: text.index(stop) + 1] if stop in text else text for text in expected]
    assert model.generate(prompts, 12, stop=stop) == cut


def test_transformers_writes_the_same(tmp_path: Path, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = read(tmp_path, "phi3")
    other = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float64, attn_implementation="eager"
    ).eval()
    prompt = random_ids(rng, 1, 11)
    with torch.no_grad():
        expected = other.generate(
            torch.tensor(prompt), attention_mask=torch.ones_like(torch.tensor(prompt)),
            max_new_tokens=15, do_sample=False, eos_token_id=None, pad_token_id=0,
        ).numpy()  # fmt: skip
    assert model.generate(prompt, 15) == expected[:, 11:].tolist()


@pytest.mark.parametrize(
    "scaling", [LONG, {"rope_type": "dynamic", "factor": 4.0}], ids=["longrope", "dynamic"]
)
def test_parts_of_a_text_are_as_the_whole(
    tmp_path: Path, scaling: dict[str, Any], rng: np.random.Generator
) -> None:
    changes = {"rope_scaling": scaling, "max_position_embeddings": SWITCH}
    model = load(write_folder(tmp_path, "llama", changes), "llama")
    ids, lengths = random_ids(rng, 2, 30), np.array([30, 13])
    whole = model(ids, lengths)

    def in_parts(**options: Any) -> NDArray[Any]:
        cache = model.new_cache(2)
        parts = []
        for start in range(0, 30, 8):
            part = ids[:, start : start + 8]
            counts = np.clip(lengths - start, 0, part.shape[1])
            parts.append(model(part, counts, cache=cache, **options))
        return np.concatenate(parts, axis=1)

    told, untold = in_parts(text_lengths=lengths), in_parts()
    for row, length in enumerate(lengths):
        expected = whole[row, :length]
        bound = 1e-5 * np.linalg.norm(expected)
        assert np.linalg.norm(told[row, :length] - expected) <= bound
        # A row within the trained length needs no telling; the other does.
        assert (np.linalg.norm(untold[row, :length] - expected) <= bound) == (length <= SWITCH)
    prompts = [ids[0].tolist(), ids[1, :13].tolist()]
    for chunk in (1, 7):
        assert model.generate(prompts, 2, chunk=chunk) == model.generate(prompts, 2)


def test_a_beginning_that_cannot_be_read_anew(model: Llama, rng: np.random.Generator) -> None:
    """Said before anything is read; texts that end in time, or are beyond already, go on."""
    ids = random_ids(rng, 1, 40)
    cache = model.new_cache(1)
    model(ids[:, :8], cache=cache)
    message = r"text 0 could have 17 tokens to be read, and the 8 in the cache are turned for a te"
    with pytest.raises(ValueError, match=message):
        model.generate(ids[:, 8:12], 6, cache=cache)
    assert cache.lengths == [8]
    expected = read_anew(model, ids[:, :12].tolist(), 5)
    assert model.generate(ids[:, 8:12], 5, cache=cache) == expected
    beyond = model.new_cache(1)
    model(ids[:, :20], cache=beyond)
    assert model.generate(ids[:, 20:22], 5, cache=beyond) == read_anew(
        model, ids[:, :22].tolist(), 5
    )


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([4, 5], ValueError, "row 0 has 5 tokens, and its text is to have 4"),
        ([9], ValueError, r"text_lengths must be \(2,\), not \(1,\)"),
        ([9.0, 9.0], TypeError, "text_lengths must hold integers, not float64"),
    ],
)
def test_lengths_of_texts_that_are_refused(
    model: Llama, lengths: Any, error: type[Exception], message: str
) -> None:
    cache = model.new_cache(2)
    with pytest.raises(error, match=message):
        model([[1, 2, 3, 4, 5]] * 2, cache=cache, text_lengths=lengths)
    assert cache.lengths.tolist() == [0, 0]
