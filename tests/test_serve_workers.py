"""`numattn serve` as a command: processes that share a model, are killed, and stop when told."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from command_line import refused
from numattn.models import Bert, Llama
from numattn.serve.sockets import listening
from serving import TLS, command_serving, get, metric, post, until
from tiny_bert import SENTENCES
from tiny_tokenizers import text_model, write_text_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="prefork needs fork")

# Long enough to be in the middle of when something happens.
LONG = {"model": "text", "prompt": "the cat", "temperature": 0, "max_tokens": 3000}


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folders") / "text"
    return write_text_folder(folder, config={"max_position_embeddings": 4096})


@pytest.fixture(scope="module")
def workers(text_folder: Path, bert_folder: Path) -> Iterator[Any]:
    """Two processes."""
    with command_serving(text_folder, f"tiny={bert_folder}", "--workers", 2) as process:
        yield process


def stream(address: str, **more: Any) -> Any:
    """Return an open stream of a long text, of which a piece has come, and its client."""
    client = httpx.Client(verify=TLS, timeout=60)
    content = {**LONG, "stream": True, **more}
    request = client.build_request("POST", f"{address}/v1/completions", json=content)
    response = client.send(request, stream=True)
    assert response.status_code == 200, response.read()
    lines = response.iter_lines()
    next(lines)
    return client, response, lines


def worker_of(response: httpx.Response) -> int:
    return int(response.headers["x-request-id"].split("-")[0])


def streams_of_two(address: str) -> dict[int, Any]:
    """Return an open stream from each of two processes."""
    found: dict[int, Any] = {}
    for _ in range(40):
        client, response, lines = stream(address)
        if worker_of(response) in found:
            response.close()
            client.close()
        else:
            found[worker_of(response)] = client, response, lines
        if len(found) == 2:
            return found
    raise AssertionError("one process answers all")


def text_of(lines: Iterator[str]) -> str:
    """Return what is left of a stream, which must end well."""
    events = [line.removeprefix("data: ") for line in lines if line]
    assert events[-1] == "[DONE]"
    parts = [json.loads(event) for event in events[:-1]]
    assert parts[-1]["choices"][0]["finish_reason"] == "length"
    return "".join(part["choices"][0]["text"] for part in parts)


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_its_own_requests_alone(workers: Any) -> None:
    address = workers.address
    (killed, (client, response, lost)), (left, (other, _, kept)) = streams_of_two(address).items()
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(httpx.RemoteProtocolError):
        text_of(lost)
    whole = post(f"{address}/v1/completions", json={**LONG, "max_tokens": 5}, timeout=60)
    assert whole.status_code == 200
    assert len(text_of(kept)) > 100
    # Another takes its place, and the one that was left alone is still there.
    seen: set[int] = set()

    def two() -> bool:
        seen.add(get(f"{address}/health").json()["pid"])
        return len(seen - {killed}) == 2

    until(two)
    assert left in seen and killed not in seen
    assert f"process {killed} ended by signal 9; another follows" in workers.stderr.readline()
    for each in (client, other):
        each.close()


@pytest.mark.slow
def test_a_worker_killed_under_load(workers: Any, bert: Bert) -> None:
    """No more requests are lost than were open, and all that are answered are right."""
    expected = bert.encode(SENTENCES)
    content = {"model": "tiny", "input": SENTENCES}
    lost: list[int] = []
    stop = threading.Event()

    def client(number: int) -> int:
        answered = 0
        with httpx.Client(verify=TLS, timeout=60) as session:
            while not stop.is_set():
                try:
                    response = session.post(f"{workers.address}/v1/embeddings", json=content)
                except httpx.TransportError:
                    lost.append(number)
                    continue
                assert response.status_code == 200
                data = response.json()["data"]
                vectors = np.array([each["embedding"] for each in data], np.float32)
                assert (vectors == expected).all()
                answered += 1
        return answered

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, number) for number in range(8)]
        for _ in range(2):
            time.sleep(0.7)
            os.kill(get(f"{workers.address}/health").json()["pid"], signal.SIGKILL)
        time.sleep(1.5)
        stop.set()
        assert all(each.result() > 0 for each in clients)
    assert len(lost) <= 16 and max(map(lost.count, range(8))) <= 2


@pytest.mark.slow
def test_metrics_are_those_of_all(workers: Any) -> None:
    name = "numattn_requests_total"
    before = metric(workers.address, name)
    for _ in range(10):
        assert get(f"{workers.address}/v1/models").status_code == 200
    until(lambda: metric(workers.address, name) == before + 10)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_what_has_begun_is_finished(text_folder: Path, count: int) -> None:
    """And nothing new is taken; a service that was told to stop has not failed."""
    with command_serving(text_folder, "--workers", count) as process:
        client, _, lines = stream(process.address, max_tokens=600)
        process.send_signal(signal.SIGTERM)
        assert len(text_of(lines)) > 100
        client.close()
        assert process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            get(f"{process.address}/health")
        assert process.stderr.read() == ""


@pytest.mark.slow
def test_what_takes_too_long_is_given_up(tmp_path: Path) -> None:
    config = {"max_position_embeddings": 16384}  # longer than it writes in a second
    folder = write_text_folder(tmp_path / "text", config=config)
    options = ("--workers", 2, "--new-tokens", 15000, "--drain-seconds", 1)
    with command_serving(folder, *options) as process:
        client, _, lines = stream(process.address, max_tokens=15000)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.RemoteProtocolError):
            text_of(lines)
        client.close()
        assert process.wait(30) == 0
        assert time.monotonic() - begun < 15


@pytest.mark.slow
def test_workers_do_not_outlive_the_first_process(text_folder: Path) -> None:
    with command_serving(text_folder, "--workers", 2) as process:
        client, response, lines = stream(process.address, max_tokens=300)
        process.kill()
        process.wait(30)
        assert len(text_of(lines)) > 20
        client.close()
        until(lambda: not alive(worker_of(response)))


def alive(process: int) -> bool:
    """Return whether there is such a process, not counting one that has ended unnoticed."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_a_key_and_an_alias(text_folder: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("from-a-file\n", encoding="ascii")
    secret = {"NUMATTN_API_KEY": "from-the-environment"}
    arguments = (f"mine={text_folder}", "--api-key-file", key)
    with command_serving(*arguments, environment=secret) as process:
        address = f"{process.address}/v1/models"
        for shown, status in (("from-the-environment", 401), ("from-a-file", 200)):
            response = get(address, headers={"authorization": f"Bearer {shown}"})
            assert response.status_code == status
        assert response.json()["data"][0]["id"] == "mine"
        assert response.json()["data"][0]["max_model_len"] == 4096


def test_what_cannot_be_served(
    tmp_path: Path, text_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    assert "no folder" in refused(capsys, "serve", tmp_path / "none", "--port", 0)
    twice = refused(capsys, "serve", text_folder, text_folder, "--port", 0)
    assert "names of models must differ" in twice
    (taken,) = listening("127.0.0.1", 0, 1)
    port = taken.getsockname()[1]
    assert "Address already in use" in refused(capsys, "serve", text_folder, "--port", port)
    taken.close()
    assert "--port must be at most 65535" in refused(capsys, "serve", text_folder, "--port", 65536)
    key = tmp_path / "key"
    key.write_bytes(b"\n")
    assert "visible ASCII" in refused(capsys, "serve", text_folder, "--api-key-file", key)
    monkeypatch.setenv("NUMATTN_API_KEY", "")
    assert "NUMATTN_API_KEY must hold" in refused(capsys, "serve", text_folder)
    monkeypatch.delenv("NUMATTN_API_KEY")
    monkeypatch.setattr("numattn.cli.serve.EXTRAS", ("uvicorn", "none_such"))
    missing = "none_such is not installed: pip install 'numattn[serve]'"
    assert missing in refused(capsys, "serve", text_folder)


def test_a_decoder_without_its_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_text_folder(tmp_path / "text")
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json" in refused(capsys, "serve", folder, "--port", 0)
    assert isinstance(text_model(tmp_path / "whole"), Llama)
