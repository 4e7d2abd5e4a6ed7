"""Texts from decoders: whole and in pieces, up to an end token, a string or a number of tokens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn.models import Llama, Sampler
from numattn.models.decoders.continuation import Continuation
from numattn.models.decoders.stop_strings import StopStrings
from numattn.models.decoders.text_folder import TextFolder
from tiny_tokenizers import KINDS, SIZE, text_model

CHAT = [{"role": "user", "content": "the cat"}]
TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}:{% endif %}"
)
MOST = 40


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    folder = tmp_path_factory.mktemp(request.param)
    return text_model(folder, request.param, tokenizer_config={"chat_template": TEMPLATE})


def free(model: Llama, prompt: list[int]) -> tuple[str, list[int]]:
    """Return what the model writes of itself, in the model's own words."""
    (tokens,) = model.generate([prompt], MOST)
    detokenizer = model.detokenizer(prompt)
    return "".join(map(detokenizer.add, tokens)) + detokenizer.finish(), tokens


def test_a_text_is_that_of_its_tokens(model: Llama) -> None:
    prompt = model.tokenize("the cat")
    text, tokens = free(model, prompt)
    written = model.generate_text("the cat", MOST)
    assert (written.text, written.tokens) == (text, tokens)
    assert (written.finish_reason, written.stopped_by) == ("length", None)
    assert written.prompt_tokens == len(prompt)
    assert model.generate_text(prompt, MOST) == written
    assert model.generate_text(np.array(prompt), MOST) == written
    assert model.generate_text(iter(prompt), MOST) == written


def test_a_chat_is_a_prompt(model: Llama) -> None:
    written = model.generate_text(CHAT, MOST)
    assert written.text == free(model, model.chat_prompt(CHAT))[0]
    assert model.generate_text(iter(CHAT), MOST) == written
    ids = model.tokenize("the cat:", add_special_tokens=False)
    assert model.generate_text(ids, MOST) == written


def test_pieces_make_up_the_text(model: Llama) -> None:
    written = model.generate_text("the cat", MOST)
    stream = model.stream("the cat", MOST)
    pieces: list[str] = []
    for piece in stream:
        assert piece
        pieces.append(piece)
        assert stream.text == "".join(pieces)
    assert stream.text == written.text and stream.tokens == written.tokens
    assert (stream.finish_reason, stream.stopped_by) == ("length", None)
    assert stream.prompt_tokens == written.prompt_tokens
    assert len(pieces) > MOST / 4
    assert list(stream) == []


def test_a_stream_is_computed_as_it_is_asked_for(model: Llama) -> None:
    stream = model.stream("the cat", 10**6)
    assert stream.tokens == []
    next(stream)
    assert 1 <= len(stream.tokens) <= 5 and stream.finish_reason is None


def test_end_tokens_are_no_part_of_the_text(model: Llama) -> None:
    prompt = model.tokenize("the cat")
    _, tokens = free(model, prompt)
    end = next(token for token in tokens[5:] if token not in tokens[:5])
    place = tokens.index(end)
    detokenizer = model.detokenizer(prompt)
    expected = "".join(map(detokenizer.add, tokens[:place])) + detokenizer.finish()
    for ends in (end, [end], {end, SIZE - 1}):
        written = model.generate_text(prompt, MOST, ends=ends)
        assert written.text == expected
        assert written.tokens == tokens[: place + 1]
        assert (written.finish_reason, written.stopped_by) == ("stop", end)


@pytest.mark.parametrize("kind", KINDS)
def test_the_end_tokens_of_the_folder(tmp_path: Path, kind: str) -> None:
    model = text_model(tmp_path / "a", kind)
    _, tokens = free(model, model.tokenize("the cat"))
    model = text_model(tmp_path / "b", kind, generation_config={"eos_token_id": tokens[4]})
    assert model.generate_text("the cat", MOST).tokens == tokens[: tokens.index(tokens[4]) + 1]
    assert model.generate_text("the cat", MOST, ends=()).tokens == tokens
    assert "".join(model.stream("the cat", MOST)) == model.generate_text("the cat", MOST).text


def test_stop_strings_at_every_place(model: Llama) -> None:
    """Whatever tokens a string stands in, the text ends before it, and streams likewise."""
    text, _ = free(model, model.tokenize("the cat"))
    for size in (1, 2, 5):
        for start in range(3, len(text) - size, 3):
            stop = text[start : start + size]
            written = model.generate_text("the cat", MOST, stop=stop)
            assert written.text == text[: text.index(stop)]
            assert (written.finish_reason, written.stopped_by) == ("stop", stop)
            stream = model.stream("the cat", MOST, stop=[stop, "not there"])
            assert "".join(stream) == written.text
            assert (stream.tokens, stream.stopped_by) == (written.tokens, stop)


def test_several_texts_end_each_for_itself(model: Llama) -> None:
    prompts = ["the cat", "a", "that dog was"]
    texts = [free(model, model.tokenize(prompt))[0] for prompt in prompts]
    stop = [texts[0][6:8], texts[1][9:11]]
    alone = [model.generate_text(prompt, MOST, stop=stop) for prompt in prompts]
    assert model.generate_texts(prompts, MOST, stop=iter(stop)) == alone
    assert len({len(written.tokens) for written in alone}) > 1
    cache = model.new_paged_cache(3, pages=40, page_size=4)
    assert model.generate_texts(prompts, MOST, stop=stop, cache=cache, chunk=2) == alone
    assert model.generate_texts([], MOST) == []


def test_nothing_is_written(model: Llama) -> None:
    written = model.generate_text("the cat", 0)
    assert (written.text, written.tokens, written.finish_reason) == ("", [], "length")
    assert list(model.stream("the cat", 0)) == []


def test_a_seed_streams_what_it_writes(model: Llama) -> None:
    def sampler() -> Sampler:
        return Sampler(temperature=1.5, repetition_penalty=1.3, seed=4)

    written = model.generate_text("the cat", MOST, sampler=sampler())
    assert "".join(model.stream("the cat", MOST, sampler=sampler())) == written.text
    assert written.text != model.generate_text("the cat", MOST).text


# --- one text, token by token ---------------------------------------------------------------------


def test_a_special_token_as_a_stop_string(model: Llama) -> None:
    """It is written as nothing, so that no string would be found."""
    special = {"bytes": "<|im_end|>", "pieces": "</s>"}
    name = next(each for each in special.values() if model.tokenizer.token_to_id(each) is not None)
    token = model.tokenizer.token_to_id(name)
    the = model.tokenize("the", add_special_tokens=False)
    for keep in (False, True):
        text = Continuation(model.tokenizer, stop=[name], keep_special=keep)
        assert "".join(map(text.add, [*the, token])) == text.text == "the"
        assert (text.finish_reason, text.stopped_by) == ("stop", name)
    with pytest.raises(ValueError, match=r"the text has ended \(stop\)"):
        text.add(1)


def test_what_is_held_is_given_at_the_end(model: Llama) -> None:
    tokens = model.tokenize("the t", add_special_tokens=False)
    limited = Continuation(model.tokenizer, stop="the tx", max_new_tokens=len(tokens))
    assert [limited.add(token) for token in tokens][-1] == limited.text == "the t"
    ended = Continuation(model.tokenizer, stop="the tx", ends=[2])
    assert "".join(map(ended.add, [*tokens, 2])) == ended.text == "the t"
    cancelled = Continuation(model.tokenizer, stop="the tx")
    assert "".join(map(cancelled.add, tokens)) == ""
    assert cancelled.finish() == cancelled.text == "the t"
    assert cancelled.finish() == ""


@pytest.mark.parametrize(
    ("stops", "pieces", "texts", "found"),
    [
        (["ab"], ["xa", "b"], ["x", ""], "ab"),
        (["ab"], ["xa", "ab"], ["x", "a"], "ab"),
        (["aab"], ["aa", "ab"], ["", "a"], "aab"),
        (["b", "abc"], ["xabcd"], ["xa"], "b"),
        (["abc", "ab"], ["xabcd"], ["x"], "ab"),
        (["c", "abc", "bc"], ["xabcd"], ["x"], "abc"),
        (["abc", "b"], ["a", "b"], ["", "a"], "b"),
        (["x"], ["abc", "", "d"], ["abc", "", "d"], None),
        ([], ["abc"], ["abc"], None),
        ("é\n", ["é", "\n", "z"], ["", "", ""], "é\n"),
    ],
)
def test_stop_strings(stops: Any, pieces: list[str], texts: list[str], found: str | None) -> None:
    stop = StopStrings(stops)
    assert [stop.add(piece) for piece in pieces] == texts
    assert stop.found == found


def test_stop_strings_of_random_texts(rng: np.random.Generator) -> None:
    """However a text is cut, what comes is that before the first of the strings."""
    for _ in range(300):
        text = "".join(rng.choice(["a", "b"], 30))
        stops = ["".join(rng.choice(["a", "b"], rng.integers(3, 8))) for _ in range(3)]
        stop, got, start = StopStrings(stops), "", 0
        while start < len(text):
            size = int(rng.integers(1, 5))
            got += stop.add(text[start : start + size])
            start += size
        ends = [text.find(each) + len(each) for each in stops if each in text]
        if stop.found is None:
            assert not ends and got + stop.finish() == text
        else:
            assert text.startswith(got + stop.found)
            assert len(got + stop.found) == min(ends)


@pytest.mark.parametrize(
    ("prompt", "options", "error", "message"),
    [
        (3, {}, TypeError, "prompt must be a sequence or another iterable of messages or token"),
        (b"a", {}, TypeError, "prompt must be a sequence"),
        ({"role": "user"}, {}, TypeError, "prompt must be a sequence"),
        ([1.5], {}, TypeError, "prompt must be a sequence of integers"),
        (["a"], {}, TypeError, "prompt must be a sequence of integers"),
        ([{"role": "user"}, "a"], {}, TypeError, "message 1 must be a mapping"),
        ([SIZE], {}, ValueError, "the tokens of prompt must be in 0"),
        ([], {}, ValueError, "prompt 0 is empty"),
        ("a", {"stop": [1]}, TypeError, "stop must be strings, not 1"),
        ("a", {"stop": 1}, TypeError, "stop must be a sequence or"),
        ("a", {"stop": ""}, ValueError, "a string of stop is empty"),
        ("a", {"stop": b"x"}, TypeError, "stop must be"),
        ("a", {"ends": "x"}, TypeError, "ends must be token ids"),
        ("a", {"max_new_tokens": -1}, ValueError, "max_new_tokens must be 0 or more"),
    ],
)
def test_bad_arguments(
    model: Llama, prompt: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    for write in (model.generate_text, model.stream):
        with pytest.raises(error, match=message):
            write(prompt, **{"max_new_tokens": 3, **options})


def test_texts_need_the_library(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(model.text_source, TextFolder)
    folder = model.text_source.folder
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match="needs tokenizers"):
        Llama.from_folder(folder).generate_text([1], 1)
