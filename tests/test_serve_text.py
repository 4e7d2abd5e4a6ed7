"""/v1/completions and /v1/chat/completions: what the model writes, whole or piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from numattn.models import Llama, Sampler
from numattn.serve import Limits
from serving import TLS, catalogue_of, metric, post, serving, until, unused_pages
from tiny_tokenizers import text_model

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
LIMITS = Limits(pages=64, page_size=8, rows=6, chunk=16, new_tokens=100)
PROMPT = "the cat sat"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    folder = tmp_path_factory.mktemp("text")
    return text_model(folder, tokenizer_config={"chat_template": TEMPLATE})


@pytest.fixture(scope="module")
def text_service(model: Llama) -> Iterator[str]:
    """A service of that model, which may have texts of 128 tokens."""
    with serving(catalogue_of(tiny=model), LIMITS) as address:
        yield address
        assert unused_pages(address) == LIMITS.pages


def complete(address: str, prompt: Any = PROMPT, **more: Any) -> httpx.Response:
    content = {"model": "tiny", "prompt": prompt, "temperature": 0, **more}
    return post(f"{address}/v1/completions", json=content)


def chat(address: str, **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": "the cat"}]
    content = {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 9, **more}
    return post(f"{address}/v1/chat/completions", json=content)


def text_after(model: Llama, prompt: list[int], count: int, **options: Any) -> str:
    (new,) = model.generate([prompt], count, chunk=LIMITS.chunk, **options)
    detokenizer = model.detokenizer(prompt)
    return "".join(map(detokenizer.add, new)) + detokenizer.finish()


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = response.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def test_a_completion(text_service: str, model: Llama) -> None:
    answer = complete(text_service).json()
    ids = model.tokenize(PROMPT)
    text = text_after(model, ids, 16)
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "length"}
    assert answer["choices"] == [choice]
    assert (answer["object"], answer["model"]) == ("text_completion", "tiny")
    total = len(ids) + 16
    assert answer["usage"] == {
        "prompt_tokens": len(ids), "completion_tokens": 16, "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": 0},
    }  # fmt: skip


def test_several_prompts_and_ids(text_service: str, model: Llama) -> None:
    prompts = [[5, 7, 9], [300], [*range(40)]]
    choices = complete(text_service, prompts, max_tokens=5).json()["choices"]
    assert [each["index"] for each in choices] == [0, 1, 2]
    assert [each["text"] for each in choices] == [text_after(model, each, 5) for each in prompts]
    (choice,) = complete(text_service, prompts[0], max_tokens=5).json()["choices"]
    assert choice == choices[0]


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_stream(text_service: str, include_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    whole = complete(text_service, [PROMPT, "the mat"]).json()
    events = events_of(complete(text_service, [PROMPT, "the mat"], stream=True, **options))
    if include_usage:
        last = events.pop()
        assert (last["choices"], last["usage"]) == ([], whole["usage"])
        assert all(each["usage"] is None for each in events)
    assert len({each["id"] for each in events}) == 1 and len(events) > 10
    for index in (0, 1):
        own = [choice for each in events for choice in each["choices"] if choice["index"] == index]
        assert "".join(each["text"] for each in own) == whole["choices"][index]["text"]
        assert [each["finish_reason"] for each in own][-2:] == [None, "length"]


def test_a_chat(text_service: str, model: Llama) -> None:
    prompt = model.chat_prompt([{"role": "user", "content": "the cat"}])
    text = text_after(model, prompt, 9)
    answer = chat(text_service).json()
    message = {"role": "assistant", "content": text, "refusal": None}
    assert answer["choices"] == [
        {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
    ]
    assert answer["object"] == "chat.completion"
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    parts = [{"type": "text", "text": "the "}, {"type": "text", "text": "cat"}]
    same = chat(text_service, messages=[{"role": "user", "content": parts}]).json()
    assert same["choices"] == answer["choices"]


def test_a_chat_as_a_stream(text_service: str) -> None:
    text = chat(text_service).json()["choices"][0]["message"]["content"]
    events = events_of(chat(text_service, stream=True))
    deltas = [each["choices"][0]["delta"] for each in events]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}
    assert "".join(each["content"] for each in deltas[:-1]) == text
    assert [each["choices"][0]["finish_reason"] for each in events[-2:]] == [None, "length"]
    assert {each["object"] for each in events} == {"chat.completion.chunk"}


def test_a_chat_without_a_limit_goes_on_to_the_end_of_the_context(text_service: str) -> None:
    usage = chat(text_service, max_tokens=None).json()["usage"]
    assert usage["completion_tokens"] == min(128 - usage["prompt_tokens"], 100)


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings(text_service: str, model: Llama, stream: bool) -> None:
    """The text ends before the first, which may stand across tokens; its pages are free."""
    text = text_after(model, model.tokenize(PROMPT), 60)
    stop = text[20:24]
    place = text.index(stop)
    response = complete(text_service, max_tokens=60, stop=["never there", stop], stream=stream)
    if stream:
        choices = [event["choices"][0] for event in events_of(response)]
    else:
        choices = response.json()["choices"]
        assert response.json()["usage"]["completion_tokens"] < 60
    assert "".join(each["text"] for each in choices) == text[:place]
    assert choices[-1]["finish_reason"] == "stop"


def test_an_end_token_is_no_part_of_the_text(tmp_path: Any, model: Llama) -> None:
    (new,) = model.generate([model.tokenize(PROMPT)], 12)
    place = new.index(new[7])
    other = text_model(tmp_path, generation_config={"eos_token_id": [new[7]]})
    with serving(catalogue_of(tiny=other), LIMITS) as address:
        answer = complete(address, max_tokens=12).json()
    detokenizer = model.detokenizer(model.tokenize(PROMPT))
    text = "".join(map(detokenizer.add, new[:place])) + detokenizer.finish()
    assert answer["choices"][0]["text"] == text
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == place + 1


def test_sampling(text_service: str, model: Llama) -> None:
    ids = model.tokenize(PROMPT)
    options = {"temperature": 1.3, "top_p": 0.8, "top_k": 40, "seed": 5}
    text = complete(text_service, max_tokens=30, **options).json()["choices"][0]["text"]
    assert text == text_after(model, ids, 30, sampler=Sampler(**options))
    (other,) = complete(text_service, max_tokens=30, **{**options, "seed": -1}).json()["choices"]
    assert other["text"] != text


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_penalties(text_service: str, model: Llama, temperature: float) -> None:
    """Which know the prompt and the text."""
    ids = model.tokenize(PROMPT)
    options: dict[str, Any] = {
        "temperature": temperature, "min_p": 0.01, "repetition_penalty": 1.2,
        "presence_penalty": 0.5, "frequency_penalty": 0.7, "seed": 3,
    }  # fmt: skip
    wanted = text_after(model, ids, 30, sampler=Sampler(**options, logit_bias={int(ids[0]): 5.0}))
    bias = {str(ids[0]): 5}
    answer = complete(text_service, max_tokens=30, **options, logit_bias=bias).json()
    assert answer["choices"][0]["text"] == wanted
    plain = complete(text_service, max_tokens=30, temperature=temperature, seed=3).json()
    assert plain["choices"][0]["text"] != wanted


def test_many_at_once_write_what_each_writes_alone(
    text_service: str, model: Llama, rng: np.random.Generator
) -> None:
    prompts = [rng.integers(0, 300, size).tolist() for size in rng.integers(1, 60, 40)]
    counts = rng.integers(1, 30, 40).tolist()
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(
            lambda prompt, count: complete(text_service, prompt, max_tokens=count).json(),
            prompts, counts,
        )  # fmt: skip
    for prompt, count, answer in zip(prompts, counts, answers, strict=True):
        assert answer["choices"][0]["text"] == text_after(model, prompt, count)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_gives_its_pages_back(text_service: str, stream: bool) -> None:
    left = metric(text_service, "numattn_disconnects_total")
    content = {"model": "tiny", "prompt": PROMPT, "max_tokens": 100, "stream": stream}
    with httpx.Client(verify=TLS) as client:
        request = client.build_request("POST", f"{text_service}/v1/completions", json=content)
        until(lambda: unused_pages(text_service) == LIMITS.pages)
        if stream:
            response = client.send(request, stream=True)
            next(response.iter_lines())
            response.close()
        else:
            request.extensions["timeout"] = {"read": 0.01}
            with pytest.raises(httpx.ReadTimeout):
                client.send(request)
    until(lambda: metric(text_service, "numattn_disconnects_total") == left + 1)
    until(lambda: unused_pages(text_service) == LIMITS.pages)
    assert metric(text_service, "numattn_running") == 0


class Failing:
    """A model that fails at a call."""

    def __init__(self, model: Llama, call: int) -> None:
        self._model, self._left = model, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            raise MemoryError("none is left")
        return self._model(*arguments, **options)


@pytest.mark.parametrize(("call", "stream"), [(1, False), (1, True), (5, False), (5, True)])
def test_a_model_that_fails(
    model: Llama, call: int, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Before a stream has begun it is an error, and then the stream's last event."""
    with serving(catalogue_of(tiny=Failing(model, call)), LIMITS) as address:
        response = complete(address, stream=stream)
        if stream and call > 1:
            error = events_of(response)[-1]["error"]
        else:
            assert response.status_code == 500
            error = response.json()["error"]
        assert error["type"] == "server_error" and "MemoryError" in error["message"]
        until(lambda: unused_pages(address) == LIMITS.pages)
        assert complete(address).status_code == 200
    assert "none is left" in caplog.text


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"n": 2}, 400, "n"),
        ({"n": True}, 400, "n"),
        ({"best_of": 3}, 400, "best_of"),
        ({"echo": True}, 400, "echo"),
        ({"logprobs": 1}, 400, "logprobs"),
        ({"suffix": "."}, 400, "suffix"),
        ({"logit_bias": {"330": 1}}, 400, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, 400, "logit_bias"),
        ({"logit_bias": {"5": "1"}}, 400, "logit_bias"),
        ({"logit_bias": [5]}, 400, "logit_bias"),
        ({"presence_penalty": 3}, 400, "presence_penalty"),
        ({"min_p": 2}, 400, "min_p"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": "1"}, 400, "temperature"),
        ({"top_p": 1.5}, 400, "top_p"),
        ({"top_k": 0}, 400, "top_k"),
        ({"seed": 0.5}, 400, "seed"),
        ({"stop": ["a"] * 5}, 400, "stop"),
        ({"stop": [""]}, 400, "stop"),
        ({"stop": 3}, 400, "stop"),
        ({"stream": 1}, 400, "stream"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 101}, 422, "max_tokens"),
        ({"prompt": ["a"] * 7}, 400, "prompt"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": [330]}, 400, "prompt"),
        ({"prompt": [5] * 113}, 400, "prompt"),
        ({"beam_width": 3}, 400, "beam_width"),
    ],
)
def test_what_is_refused(text_service: str, more: Any, status: int, param: str) -> None:
    response = complete(text_service, **more)
    assert response.status_code == status, response.text
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "more",
    [
        {"messages": []},
        {"messages": "hello"},
        {"messages": [{"content": "no role"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
    ],
)
def test_what_is_no_chat(text_service: str, more: Any) -> None:
    response = chat(text_service, **more)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages"


def test_a_context_that_is_full(text_service: str) -> None:
    assert complete(text_service, [5] * 112).status_code == 200
    error = complete(text_service, [5] * 113).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "128 tokens; 113 are in prompt and 16 were to follow" in error["message"]


def test_a_model_without_a_chat_template(tmp_path: Any) -> None:
    with serving(catalogue_of(tiny=text_model(tmp_path)), LIMITS) as address:
        response = chat(address)
    assert response.status_code == 400
    assert "the model has no chat template" in response.json()["error"]["message"]


def test_the_clients_of_others(text_service: str) -> None:
    openai = pytest.importorskip("openai")
    whole = complete(text_service).json()["choices"][0]["text"]
    told = chat(text_service).json()["choices"][0]["message"]["content"]
    with openai.OpenAI(base_url=f"{text_service}/v1", api_key="any", max_retries=0) as client:
        answer = client.completions.create(model="tiny", prompt=PROMPT, temperature=0)
        assert answer.choices[0].text == whole
        parts = client.completions.create(model="tiny", prompt=PROMPT, temperature=0, stream=True)
        assert "".join(part.choices[0].text for part in parts) == whole
        wanted: Any = {
            "model": "tiny", "messages": [{"role": "user", "content": "the cat"}],
            "temperature": 0, "max_completion_tokens": 9,
        }  # fmt: skip
        assert client.chat.completions.create(**wanted).choices[0].message.content == told
        options = {"include_usage": True}
        parts = [*client.chat.completions.create(**wanted, stream=True, stream_options=options)]
        assert parts[-1].usage.completion_tokens == 9
        assert "".join(part.choices[0].delta.content or "" for part in parts[:-1]) == told
        with pytest.raises(openai.BadRequestError, match="n 2 is not supported"):
            client.completions.create(model="tiny", prompt=PROMPT, n=2)
        with pytest.raises(openai.UnprocessableEntityError, match="a text may have 100"):
            client.completions.create(model="tiny", prompt=PROMPT, max_tokens=10_000)
