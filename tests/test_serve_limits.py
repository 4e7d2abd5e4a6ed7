"""What a service refuses, and that it goes on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from numattn.models import Bert
from numattn.serve import Catalogue, Limits, create_app
from numattn.serve.catalogue import Entry
from numattn.serve.embedding_queue import EmbeddingQueue
from numattn.serve.exchange import Gone, in_time
from numattn.serve.sockets import listening
from serving import HeldBert, catalogue_of, get, metric, post, serving, until

GOOD = {"model": "tiny", "input": "a cat"}


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert {*error} == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xff\xfe", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[]", "must be a JSON object, not []"),
        (b'{"input": "a"}', "model is missing"),
        (b'{"model": 3, "input": "a"}', "model must be a string, not 3"),
        (b'{"model": "tiny", "input": "a", "encoding_format": "int8"}', "float, base64, not"),
        (b'{"model": "tiny", "input": "a", "inputt": 1}', 'the field "inputt"'),
        (b'{"model": "tiny", "input": "a", "truncate": 1}', "truncate must be true or false"),
    ],
)
def test_malformed(service: str, body: bytes, words: str) -> None:
    response = post(f"{service}/v1/embeddings", content=body)
    assert words in error_of(response, 400)["message"]


def test_addresses_and_methods(service: str) -> None:
    assert error_of(get(f"{service}/v2"), 404)["code"] == "unknown_url"
    error_of(get(f"{service}/v1/embeddings"), 405)
    error_of(get(f"{service}/v1/models/none"), 404)
    assert get(f"{service}/v1/models/tiny").json()["id"] == "tiny"
    assert get(f"{service}/health").json()["status"] == "ok"
    response = post(f"{service}/v1/embeddings", json={**GOOD, "model": "other"})
    assert error_of(response, 404)["code"] == "model_not_found"


@pytest.fixture(scope="module")
def small(bert: Bert) -> Iterator[str]:
    """A service with little room."""
    limits = Limits(body_bytes=1000, requests=2, request_tokens=20)
    with serving(catalogue_of(tiny=bert), limits, key="secret") as address:
        yield address


KEY = {"authorization": "Bearer secret"}


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("size", [1001, 3000, 1_000_000])
def test_a_body_too_large(small: str, declared: bool, size: int) -> None:
    body = b"x" * size
    content: Any = body if declared else (body[at : at + 500] for at in range(0, size, 500))
    response = post(f"{small}/v1/embeddings", content=content, headers=KEY)
    assert "more than 1000 bytes" in error_of(response, 413)["message"]


def test_too_many_tokens(small: str) -> None:
    content = {"model": "tiny", "input": ["a cat"] * 6}
    response = post(f"{small}/v1/embeddings", json=content, headers=KEY)
    assert "input has 24 tokens; a request may have 20" in error_of(response, 422)["message"]


def test_a_body_that_does_not_come(bert: Bert) -> None:
    with serving(catalogue_of(tiny=bert), Limits(body_seconds=1)) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            head = "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n{"
            connection.sendall(head.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        assert post(f"{address}/v1/embeddings", json=GOOD).status_code == 200


@pytest.mark.parametrize(
    "shown",
    [None, "Bearer", "Bearer secre", "Bearer secrets", "Basic secret", "secret", "Bearer ö"],
)
def test_a_wrong_key(small: str, shown: str | None) -> None:
    headers = {} if shown is None else {b"authorization": shown.encode("utf-8")}
    for path in ("/v1/models", "/v1/nothing"):
        response = get(small + path, headers=headers)
        assert error_of(response, 401)["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
    assert get(f"{small}/health", headers=headers).status_code == 200


@pytest.mark.parametrize("prefix", ["/models", "/v1", "/v"])
def test_a_key_is_asked_for_wherever_the_service_is_mounted(bert: Bert, prefix: str) -> None:
    """Hosts put where it is mounted before "path", and into "root_path"."""
    app = create_app(catalogue_of(tiny=bert), key="secret")
    with TestClient(app, root_path=prefix) as client:
        assert client.get(f"{prefix}/health").status_code == 200
        error_of(client.post(f"{prefix}/v1/embeddings", json=GOOD), 401)
        headers = {"authorization": "Bearer secret"}
        answer = client.post(f"{prefix}/v1/embeddings", json=GOOD, headers=headers)
        assert answer.status_code == 200


def test_a_right_key(small: str) -> None:
    for shown in ("Bearer secret", "bearer  secret"):
        response = post(f"{small}/v1/embeddings", json=GOOD, headers={"authorization": shown})
        assert response.status_code == 200


def test_too_many_requests(bert: Bert) -> None:
    held = HeldBert(bert)

    def answer() -> httpx.Response:
        return post(f"{address}/v1/embeddings", json=GOOD, timeout=30)

    with (
        serving(catalogue_of(tiny=held), Limits(requests=3)) as address,
        ThreadPoolExecutor(8) as pool,
    ):
        waiting = [pool.submit(answer) for _ in range(3)]
        until(lambda: metric(address, "numattn_requests_in_progress") == 3)
        refused = answer()
        assert error_of(refused, 429)["type"] == "rate_limit_error"
        assert refused.headers["retry-after"] == "1"
        held.may.set()
        assert [each.result().status_code for each in waiting] == [200] * 3
        assert answer().status_code == 200


def test_a_service_that_stops_takes_nothing_new(bert: Bert) -> None:
    app = create_app(catalogue_of(tiny=bert))
    app.drain()
    with TestClient(app) as client:
        assert error_of(client.post("/v1/embeddings", json=GOOD), 503)["code"] == "stopping"
        assert client.get("/health").status_code == 503


@pytest.mark.parametrize("name", ["requests", "chunk", "body_bytes"])
def test_limits_are_whole_numbers_from_1_on(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, not 0"):
        Limits(**{name: 0})
    with pytest.raises(TypeError, match=name):
        Limits(**{name: 1.5})


@pytest.mark.parametrize("name", ["prefixes", "draft"])
def test_limits_that_may_be_0(name: str) -> None:
    assert getattr(Limits(**{name: 0}), name) == 0
    with pytest.raises(ValueError, match=f"{name} must be 0 or more, not -1"):
        Limits(**{name: -1})


def test_names_of_models_differ(bert: Bert) -> None:
    with pytest.raises(ValueError, match="names of models must differ"):
        Catalogue([Entry("a", bert, 24), Entry("a", bert, 24)])
    with pytest.raises(ValueError, match="no model"):
        Catalogue([])


@pytest.mark.parametrize("count", [1, 3])
def test_sockets_are_told_that_they_are_tcp(count: int) -> None:
    """Or asyncio would not send each answer at once."""
    sockets = listening("127.0.0.1", 0, count)
    assert len(sockets) == count
    assert {each.proto for each in sockets} == {socket.IPPROTO_TCP}
    assert len({each.getsockname() for each in sockets}) == 1
    port = sockets[0].getsockname()[1]
    for other in (1, 3):
        with pytest.raises(OSError, match="in use"):
            listening("127.0.0.1", port, other)
    for each in sockets:
        each.close()


def test_a_client_that_does_not_read_is_given_up() -> None:
    """It would hold a request's place for as long as it likes."""

    async def never(message: Any) -> None:
        await asyncio.sleep(3600)

    async def attempt() -> None:
        await in_time(never({}), 0.01)

    with pytest.raises(Gone):
        asyncio.run(attempt())


def test_an_engine_goes_on_after_a_fault_of_its_own(
    bert: Bert, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever waits is told."""
    batch = EmbeddingQueue.batch
    calls = 0

    def failing(queue: EmbeddingQueue) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError
        return batch(queue)

    monkeypatch.setattr(EmbeddingQueue, "batch", failing)
    with serving(catalogue_of(tiny=bert)) as address:
        error_of(post(f"{address}/v1/embeddings", json=GOOD), 500)
        assert post(f"{address}/v1/embeddings", json=GOOD).status_code == 200
        assert get(f"{address}/health").status_code == 200
    assert "all that waits is given up" in caplog.text
