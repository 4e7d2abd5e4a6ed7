"""Models in Ray: a cluster of two machines on this one, and what is said without Ray."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from numattn.models import Bert, Llama
from tiny_bert import SENTENCES
from tolerance import assert_same_bits

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, each with two processors of Ray's counting."""
    changed = pytest.MonkeyPatch()
    # Workers import numattn from where this process does.
    changed.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    # A proxy gives requests to replicas of its own machine as long as they are not busy.
    changed.setenv("RAY_SERVE_PROXY_PREFER_LOCAL_NODE_ROUTING", "0")
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    nodes.add_node(num_cpus=2)
    try:
        ray.init(address=nodes.address, log_to_driver=False, logging_level="warning")
        nodes.wait_for_nodes()
        yield ray
    finally:
        ray.shutdown()
        nodes.shutdown()
        changed.undo()


@needs_ray
def test_a_data_set(cluster: Any, bert_folder: Path, bert: Bert) -> None:
    from numattn.compat.ray import Embedder

    class Noting(Embedder):
        """Says as well which machine it is on and how many threads it uses."""

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            node = cluster.get_runtime_context().get_node_id()
            count = len(batch[self.column])
            noted = {"node": np.full(count, node), "threads": np.full(count, self.num_threads)}
            return {**super().__call__(batch), **noted}

    items = [{"text": text, "row": row} for row, text in enumerate(SENTENCES * 20)]
    texts = cluster.data.from_items(items, override_num_blocks=20)
    # Of three processors on two machines, one actor each: two do not fit on one.
    rows = texts.map_batches(
        Noting,
        fn_constructor_args=(str(bert_folder),),
        compute=cluster.data.ActorPoolStrategy(size=2),
        num_cpus=1.5,
        batch_size=5,
    ).take_all()
    rows.sort(key=lambda row: row["row"])
    assert [row["text"] for row in rows] == SENTENCES * 20
    vectors = np.stack([row["embedding"] for row in rows])
    assert vectors.dtype == np.float32
    assert_same_bits(vectors, bert.encode(SENTENCES * 20))
    assert {row["threads"] for row in rows} == {1}
    assert len({row["node"] for row in rows}) == 2


@needs_ray
def test_threads_are_the_processors_given(cluster: Any, bert_folder: Path) -> None:
    from numattn.compat.ray import Embedder

    @cluster.remote
    class Actor:
        def threads(self, given: int | None) -> int | None:
            return Embedder(str(bert_folder), num_threads=given).num_threads

    for processors, threads in ((2, 2), (1, 1), (0.5, 1)):
        actor = Actor.options(num_cpus=processors).remote()
        assert cluster.get(actor.threads.remote(None)) == threads
        assert cluster.get(actor.threads.remote(3)) == 3
        cluster.kill(actor)
    assert Embedder(str(bert_folder)).num_threads is None  # in the program itself


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama."""
    from tiny_tokenizers import write_text_folder

    return write_text_folder(tmp_path_factory.mktemp("text"))


@needs_ray
@pytest.mark.parametrize("prefix", ["", "/texts"])
def test_a_service(
    cluster: Any, bert_folder: Path, text_folder: Path, bert: Bert, prefix: str
) -> None:
    from ray import serve

    from numattn.compat.ray import service

    app = service(
        f"tiny={bert_folder}", f"text={text_folder}", key="secret", num_replicas=2,
        ray_actor_options={"num_cpus": 1},
    )  # fmt: skip
    port = free_port()
    serve.start(http_options={"port": port, "host": "127.0.0.1"})
    try:
        serve.run(app, route_prefix=prefix or "/")
        address = f"http://127.0.0.1:{port}{prefix}"
        headers = {"authorization": "Bearer secret"}
        with httpx.Client(headers=headers, timeout=60) as client:
            content = {"model": "tiny", "input": SENTENCES}
            for _ in range(20):
                answer = client.post(f"{address}/v1/embeddings", json=content)
                assert answer.status_code == 200, answer.text
                data = answer.json()["data"]
                vectors = np.array([each["embedding"] for each in data], np.float32)
                assert_same_bits(vectors, bert.encode(SENTENCES))
            pids = {client.get(f"{address}/health").json()["pid"] for _ in range(100)}
            assert len(pids) == 2 and os.getpid() not in pids
            answer = client.post(f"{address}/v1/embeddings", json={**content, "model": "other"})
            assert answer.json()["error"]["code"] == "model_not_found"
            assert client.get(f"{address}/v1/none").status_code == 404
        # The key is asked for whatever the prefix.
        for path in ("embeddings", "models"):
            answer = httpx.post(f"{address}/v1/{path}", json=content, timeout=60)
            assert answer.status_code == 401, (path, answer.text)
        openai = pytest.importorskip("openai")
        model = Llama.from_folder(text_folder)
        (ids,) = model.generate([model.tokenize("the cat")], 9)
        written = model.detokenizer(model.tokenize("the cat"))
        expected = "".join(map(written.add, ids)) + written.finish()
        with openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0) as client:
            answer = client.embeddings.create(model="tiny", input=SENTENCES)
            assert_same_bits(
                np.array([each.embedding for each in answer.data], np.float32),
                bert.encode(SENTENCES),
            )
            options = {"prompt": "the cat", "max_tokens": 9, "temperature": 0, "stream": True}
            pieces = client.completions.create(model="text", **options)
            assert "".join(piece.choices[0].text for piece in pieces) == expected
    finally:
        serve.shutdown()


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_what_is_no_batch(bert_folder: Path, bert: Bert) -> None:
    from numattn.compat.ray import Embedder

    embedder = Embedder(bert_folder, num_threads=1, column="line", output="vector")
    batch = {"line": np.array(SENTENCES, object), "row": np.arange(len(SENTENCES))}
    result = embedder(batch)
    assert_same_bits(result["vector"], bert.encode(SENTENCES))
    assert [*result] == ["line", "row", "vector"]
    with pytest.raises(KeyError, match=r"no column 'line'; it has \['text'\]"):
        embedder({"text": ["a"]})
    with pytest.raises(TypeError, match="row 1 of 'line' must be a text, not NoneType"):
        embedder({"line": ["a", None]})
    with pytest.raises(ValueError, match="another column"):
        Embedder(bert_folder, column="x", output="x")


def test_a_model_without_vectors(tmp_path: Path) -> None:
    from numattn.compat.ray import Embedder
    from tiny_decoders import write_folder

    folder = write_folder(tmp_path / "llama", "llama")
    with pytest.raises(ValueError, match="a Llama makes no vectors"):
        Embedder(folder, num_threads=1)


def test_without_ray(monkeypatch: pytest.MonkeyPatch, bert_folder: Path) -> None:
    from numattn.compat.ray import Embedder, service

    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"numattn\[ray\]"):
        Embedder(bert_folder)
    with pytest.raises(ImportError, match=r"numattn\[ray\]"):
        service(str(bert_folder))
