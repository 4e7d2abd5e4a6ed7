"""`numattn serve` under load: is every answer right, how long does it take, and does memory grow?

    python bench/service_load.py embeddings                  # 64 clients, 20,000 requests, MiniLM
    python bench/service_load.py embeddings --workers 2 --kill 10      # one killed every 10 s
    python bench/service_load.py texts             # of a tiny random Llama; a third is cancelled

Each client sends a request when it has the answer to the last. Vectors and texts are compared with
what the model gives alone: bit by bit, and letter by letter. The service is started and stopped
here, listens to 127.0.0.1 alone, and nothing else is spoken to.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import httpx
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
WORDS = "the of and a to in is it that was for on are with as his they be at one have this".split()
TEXTS, LONGEST = 400, 60  # words
PROMPTS = 60
TEXT_LIMITS = {"rows": 16, "pages": 200, "page_size": 16, "chunk": 64}
TLS = ssl.create_default_context()
Send: TypeAlias = "Callable[[httpx.AsyncClient, random.Random], Awaitable[str]]"


class Memory(NamedTuple):
    """KiB of processes, of which pages that several have are counted once."""

    total: int
    own: int
    """Without pages of files: a library's count as more where fewer other programs use it."""


class Tally:
    """What has become of requests."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.memory: list[tuple[float, Memory]] = []
        """Shares of the requests that had been answered, and what all processes had then."""


def main() -> int:
    """Run a load and say how it went; 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("load", choices=("embeddings", "texts"))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--kill", type=float, metavar="SECONDS", help="kill a worker so often")
    parser.add_argument("--cancel", type=float, default=1 / 3, help="share of texts cancelled")
    arguments = parser.parse_args()
    if arguments.requests is None:
        arguments.requests = 20_000 if arguments.load == "embeddings" else 3_000
    with tempfile.TemporaryDirectory() as folder:
        model, options = prepared(arguments, Path(folder))
        with service(model, options) as (process, address):
            return asyncio.run(measure(arguments, model, process, address))


def prepared(arguments: argparse.Namespace, folder: Path) -> tuple[str, list[str]]:
    """Return NAME=FOLDER of the model, and options of the command."""
    options = ["--workers", str(arguments.workers), "--body-seconds", "120"]
    if arguments.threads is not None:
        options += ["--threads", str(arguments.threads)]
    if arguments.load == "embeddings":
        from numattn.models import installed_folder

        return f"model={installed_folder()}", options
    sys.path.append(str(ROOT / "tests"))
    from tiny_tokenizers import write_text_folder

    write_text_folder(folder, config={"max_position_embeddings": 512})
    for name, value in TEXT_LIMITS.items():
        options += ["--" + name.replace("_", "-"), str(value)]
    return f"model={folder}", options


@contextmanager
def service(model: str, options: list[str]) -> Iterator[tuple[int, str]]:
    """Run the command; yield its process and address."""
    command = [sys.executable, "-m", "numattn", "serve", model, "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise RuntimeError(line + process.stderr.read())
        yield process.pid, found[0]
    finally:
        process.terminate()
        told = process.communicate()[1].splitlines()
        for line in told[:20]:
            print(line, file=sys.stderr)
        print(f"exit code {process.returncode}")


async def measure(arguments: argparse.Namespace, model: str, process: int, address: str) -> int:
    """Put the load on, and print what came of it."""
    tally = Tally()
    async with new_client(address) as client:
        while not await answers(client):
            await asyncio.sleep(0.1)
        load = embedding_load if arguments.load == "embeddings" else text_load
        send = load(arguments, model)
        begun = time.perf_counter()
        watcher = asyncio.ensure_future(watch(arguments, tally, process))
        await send_all(arguments, tally, address, send)
        seconds = time.perf_counter() - begun
        print(f"{cpu_seconds(process):.1f} s of processor time in the service, its start included")
        watcher.cancel()
        tally.memory.append((1.0, memory_of(process)))
        report(arguments, tally, seconds)
        wrong = sum(count for name, count in tally.outcomes.items() if name.startswith("wrong"))
        if not arguments.kill:
            wrong += tally.outcomes["lost"]
        if arguments.load == "texts":
            wrong += not await all_free(client)
    return 1 if wrong else 0


def new_client(address: str) -> httpx.AsyncClient:
    """Return a client with a connection of its own: many in one would cost more than an answer."""
    return httpx.AsyncClient(base_url=address, timeout=300, verify=TLS)


async def answers(client: httpx.AsyncClient) -> bool:
    """Return whether the service is there."""
    try:
        return (await client.get("/health")).status_code == 200
    except httpx.TransportError:
        return False


async def send_all(arguments: argparse.Namespace, tally: Tally, address: str, send: Send) -> None:
    """Send requests from so many clients at once."""
    left = iter(range(arguments.requests))

    async def one_client(number: int) -> None:
        chance = random.Random(number)
        async with new_client(address) as client:
            for _ in left:
                begun = time.perf_counter()
                try:
                    outcome = await send(client, chance)
                except httpx.TransportError:
                    outcome = "lost"
                tally.outcomes[outcome] += 1
                if outcome == "right":
                    tally.seconds.append(time.perf_counter() - begun)

    await asyncio.gather(*(one_client(number) for number in range(arguments.clients)))


def embedding_load(arguments: argparse.Namespace, model: str) -> Send:
    """Return what asks for the vector of one of some texts, of 1 to 60 words."""
    from numattn.models import load

    chance = random.Random(0)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(1, LONGEST))) for _ in range(TEXTS)]
    encoder = load(model.partition("=")[2])
    expected = encoder.encode(texts)
    tokens = encoder.tokenize(texts).lengths
    print(
        f"{TEXTS} texts of {tokens.min()} to {tokens.max()} tokens, {tokens.mean():.0f} on average"
    )

    async def send(client: httpx.AsyncClient, chance: random.Random) -> str:
        number = chance.randrange(TEXTS)
        content = {"model": "model", "input": texts[number], "encoding_format": "base64"}
        response = await client.post("/v1/embeddings", json=content)
        if response.status_code != 200:
            return f"wrong: status {response.status_code}"
        data = base64.b64decode(response.json()["data"][0]["embedding"])
        same = np.array_equal(np.frombuffer(data, "<f4"), expected[number])
        return "right" if same else "wrong: another vector"

    return send


def text_load(arguments: argparse.Namespace, model: str) -> Send:
    """Return what asks for texts, as streams or whole, and leaves some before they are done."""
    from numattn.models import load

    decoder = load(model.partition("=")[2])
    chance = random.Random(0)
    wanted = []
    for _ in range(PROMPTS):
        prompt = [chance.randrange(300) for _ in range(chance.randint(1, 300))]
        count = chance.randint(1, 100)
        (new,) = decoder.generate([prompt], count, chunk=TEXT_LIMITS["chunk"])
        detokenizer = decoder.detokenizer(prompt)
        text = "".join(map(detokenizer.add, new)) + detokenizer.finish()
        wanted.append(({"prompt": prompt, "max_tokens": count}, text))

    async def send(client: httpx.AsyncClient, chance: random.Random) -> str:
        options, text = wanted[chance.randrange(PROMPTS)]
        content = {"model": "model", "temperature": 0, **options}
        cancel = chance.random() < arguments.cancel
        if chance.random() < 0.5:
            return await whole(
                client, content, text, chance.uniform(0.001, 0.3) if cancel else None
            )
        return await stream(client, content, text, chance.randint(1, 20) if cancel else None)

    return send


async def whole(
    client: httpx.AsyncClient, content: dict[str, Any], text: str, patience: float | None
) -> str:
    """Ask for a text, and wait so long at the most."""
    timeout = httpx.USE_CLIENT_DEFAULT if patience is None else httpx.Timeout(30, read=patience)
    try:
        response = await client.post("/v1/completions", json=content, timeout=timeout)
    except httpx.ReadTimeout:
        return "cancelled"
    if response.status_code != 200:
        return f"wrong: status {response.status_code}"
    same = response.json()["choices"][0]["text"] == text
    return "right" if same else "wrong: another text"


async def stream(
    client: httpx.AsyncClient, content: dict[str, Any], text: str, most: int | None
) -> str:
    """Ask for a text as a stream, and take so many events of it at the most."""
    parts: list[str] = []
    async with client.stream("POST", "/v1/completions", json={**content, "stream": True}) as reply:
        if reply.status_code != 200:
            return f"wrong: status {reply.status_code}"
        async for line in reply.aiter_lines():
            if line == "data: [DONE]":
                return "right" if "".join(parts) == text else "wrong: another text"
            if line:
                choices = json.loads(line.removeprefix("data: "))["choices"]
                parts += [choice["text"] for choice in choices]
            if most is not None and len(parts) >= most:
                return "cancelled"
    return "wrong: a stream without its end"


async def watch(arguments: argparse.Namespace, tally: Tally, process: int) -> None:
    """Note memory from time to time, and kill workers."""
    killed = time.perf_counter()
    while True:
        await asyncio.sleep(1)
        done = tally.outcomes.total() / arguments.requests
        tally.memory.append((done, memory_of(process)))
        if arguments.kill and time.perf_counter() - killed > arguments.kill:
            killed = time.perf_counter()
            os.kill(random.choice(children_of(process)), signal.SIGKILL)
            tally.outcomes["(killed)"] += 1


def children_of(process: int) -> list[int]:
    """Return the processes that one has forked."""
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in path.read_text(encoding="ascii").split()]


def memory_of(process: int) -> Memory:
    """Return the memory of a process and those it has forked."""
    total = own = 0
    for each in (process, *children_of(process)):
        try:
            text = Path(f"/proc/{each}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            continue
        found = dict(re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE))
        total += int(found.get("Pss", 0))
        own += int(found.get("Pss_Anon", 0))
    return Memory(total, own)


def cpu_seconds(process: int) -> float:
    """Return the processor time of a process and those it has forked that are left."""
    ticks = 0
    for each in (process, *children_of(process)):
        fields = Path(f"/proc/{each}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def report(arguments: argparse.Namespace, tally: Tally, seconds: float) -> None:
    """Print what came of a load."""
    print(f"{arguments.load}: {arguments.clients} clients, {arguments.workers} workers")
    print(f"{arguments.requests} requests in {seconds:.1f} s: {arguments.requests / seconds:.1f}/s")
    print(", ".join(f"{count} {name}" for name, count in sorted(tally.outcomes.items())))
    if tally.seconds:
        times = np.array(tally.seconds) * 1000
        shares = np.percentile(times, [50, 90, 99, 100])
        print("ms: p50 {:.0f}, p90 {:.0f}, p99 {:.0f}, longest {:.0f}".format(*shares))
    for share in (0.1, 0.25, 0.5, 0.75, 1):
        memory = next(memory for done, memory in tally.memory if done >= share)
        total, own = memory.total / 1024, memory.own / 1024
        print(f"memory at {share:.0%}: {total:.1f} MiB, {own:.1f} without pages of files")


async def all_free(client: httpx.AsyncClient) -> bool:
    """Return whether soon nothing runs or waits, and all pages are free, or kept."""
    names = ("free_pages", "kept_pages", "running", "waiting")
    for _ in range(100):
        text = (await client.get("/metrics")).text
        found = dict(re.findall(r"^numattn_(\w+)\{.*\} (\S+)$", text, re.MULTILINE))
        free, kept, running, waiting = (int(float(found[name])) for name in names)
        done = free + kept == TEXT_LIMITS["pages"] and not running and not waiting
        if done:
            break
        await asyncio.sleep(0.1)
    print(f"{free} pages free, {kept} kept, {running} texts running, {waiting} waiting")
    print(f"{found['reused_tokens_total']} of {found['prompt_tokens_total']} prompt tokens reused")
    return done


if __name__ == "__main__":
    sys.exit(main())
