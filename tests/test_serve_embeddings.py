"""/v1/embeddings: the vectors of `encode`, in whatever company a text comes."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from numattn.models import Bert
from serving import HeldBert, catalogue_of, metric, post, serving, until
from tiny_bert import SENTENCES
from tolerance import assert_same_bits


def embed(address: str, given: Any, **more: Any) -> httpx.Response:
    content = {"model": "tiny", "input": given, **more}
    # In ASCII, so that a lone surrogate can be said.
    return post(f"{address}/v1/embeddings", content=json.dumps(content))


def vectors_of(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [each["index"] for each in data] == [*range(len(data))]
    assert {each["object"] for each in data} == {"embedding"}
    return np.array([each["embedding"] for each in data], np.float32)


def test_texts(service: str, bert: Bert) -> None:
    response = embed(service, SENTENCES)
    assert_same_bits(vectors_of(response), bert.encode(SENTENCES))
    tokens = sum(map(len, bert.tokenize(SENTENCES).ids))
    answer = response.json()
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert (answer["object"], answer["model"]) == ("list", "tiny")
    assert_same_bits(vectors_of(embed(service, SENTENCES[0])), bert.encode(SENTENCES[:1]))


def test_ids(service: str, bert: Bert) -> None:
    ids = [each.tolist() for each in bert.tokenize(SENTENCES).ids]
    assert_same_bits(vectors_of(embed(service, ids)), bert.encode(SENTENCES))
    assert_same_bits(vectors_of(embed(service, ids[0])), bert.encode(SENTENCES[:1]))


def test_base64(service: str, bert: Bert) -> None:
    data = embed(service, SENTENCES, encoding_format="base64").json()["data"]
    vectors = np.stack([np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in data])
    assert_same_bits(vectors, bert.encode(SENTENCES))


def test_the_models_own_size_may_be_named(service: str, bert: Bert) -> None:
    response = embed(service, "a cat", dimensions=32, user="someone")
    assert_same_bits(vectors_of(response), bert.encode(["a cat"]))
    response = embed(service, "a cat", dimensions=16)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "dimensions"


def test_a_long_text_is_an_error_unless_it_is_to_be_cut(
    service: str,
    bert: Bert,
) -> None:
    texts = ["a cat", "cat " * 100]
    response = embed(service, texts)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert "24 tokens; text 1 of input has more" in error["message"]
    with pytest.warns(UserWarning, match="were cut"):
        expected = bert.encode(texts)
    assert_same_bits(vectors_of(embed(service, texts, truncate=True)), expected)
    ids = [5] * 25
    assert "a list of 25" in embed(service, ids).json()["error"]["message"]
    cut = vectors_of(embed(service, ids, truncate=True))
    assert_same_bits(cut, bert.encode_tokens([ids[:24]]))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "input must be a string"),
        (["a", 3], "input must be a string"),
        ([[]], "input must be a string"),
        ([[1], [True]], "input must be a string"),
        (["a", None], "input must be a string"),
        ({"text": "a"}, "input must be a string"),
        (3, "input must be a string"),
        (["a"] * 2049, "at most 2048 entries, not 2049"),
        ([3, 99999], "the token 99999"),
        ([3, -1], "the token -1"),
        ([2**70], "the token 1180591620717411303424"),
        (None, "input is missing"),
        ("a \ud800 cat", "text 0 of input is not Unicode"),
    ],
)
def test_what_is_no_input(service: str, given: Any, words: str) -> None:
    response = embed(service, given)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert response.json()["error"]["param"] == "input"
    assert words in response.json()["error"]["message"]


def test_many_at_once_have_the_bits_of_each_alone(
    service: str,
    bert: Bert,
    rng: np.random.Generator,
) -> None:
    requests = [
        [SENTENCES[index] for index in rng.integers(0, len(SENTENCES), rng.integers(1, 20))]
        for _ in range(80)
    ]
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda texts: embed(service, texts), requests))
    for texts, response in zip(requests, responses, strict=True):
        assert_same_bits(vectors_of(response), bert.encode(texts))


def test_what_waits_is_computed_together(bert: Bert) -> None:
    held = HeldBert(bert)
    with serving(catalogue_of(tiny=held)) as address, ThreadPoolExecutor(8) as pool:
        first = pool.submit(embed, address, "a cat")
        until(lambda: held.begun)
        others = [pool.submit(embed, address, "a cat and a dog") for _ in range(5)]
        until(lambda: metric(address, "numattn_requests_in_progress") == 6)
        held.may.set()
        for each in [first, *others]:
            assert each.result().status_code == 200
    assert held.batches[0] == [4]
    # Between those that came and the engine's turn there is a moment.
    assert sum(held.batches[1:], []) == [7] * 5 and len(held.batches) <= 3


def test_a_client_that_leaves_is_not_computed_for(bert: Bert) -> None:
    held = HeldBert(bert)
    with serving(catalogue_of(tiny=held)) as address, ThreadPoolExecutor(8) as pool:
        first = pool.submit(embed, address, "a cat")
        until(lambda: held.begun)
        with pytest.raises(httpx.ReadTimeout):
            content = {"model": "tiny", "input": ["a dog and a cat ran"] * 5}
            post(f"{address}/v1/embeddings", json=content, timeout=0.3)
        until(lambda: metric(address, "numattn_disconnects_total") == 1)
        held.may.set()
        assert first.result().status_code == 200
        assert embed(address, "dog").status_code == 200
    assert held.batches == [[4], [3]]


def test_a_model_that_fails_fails_for_those_alone(bert: Bert, caplog: Any) -> None:
    class Failing(HeldBert):
        def encode_tokens(self, lists: Any, **options: Any) -> Any:
            if any(len(each) == 4 for each in lists):
                raise MemoryError("no memory for this")
            return bert.encode_tokens(lists, **options)

    with serving(catalogue_of(tiny=Failing(bert))) as address:
        response = embed(address, "a cat")
        assert response.status_code == 500
        assert response.json()["error"]["type"] == "server_error"
        assert embed(address, "dog").status_code == 200
    assert "MemoryError" in caplog.text


def test_the_clients_of_others(service: str, bert: Bert) -> None:
    """OpenAI's own, which asks for base64 unless it is told otherwise."""
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{service}/v1", api_key="any", max_retries=0) as client:
        for form in ({}, {"encoding_format": "float"}):
            answer = client.embeddings.create(model="tiny", input=SENTENCES, **form)
            vectors = np.array([each.embedding for each in answer.data], np.float32)
            assert_same_bits(vectors, bert.encode(SENTENCES))
        assert [model.id for model in client.models.list()] == ["tiny"]
        assert client.models.retrieve("tiny").id == "tiny"
        with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
            client.embeddings.create(model="gpt", input="a")
        with pytest.raises(openai.BadRequestError, match="writes no text"):
            client.completions.create(model="tiny", prompt="a")
        with pytest.raises(openai.BadRequestError) as refused:
            client.embeddings.create(model="tiny", input="cat " * 100)
        assert refused.value.code == "context_length_exceeded"
