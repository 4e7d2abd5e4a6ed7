"""Chats → prompts, by the templates of models' folders: in a sandbox, with errors that say why."""

from __future__ import annotations

import enum
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chat_templates import BRACKETS, CHATS, HEADERS, MARKED, SPECIAL, TEMPLATES, TOOLS
from numattn.models.decoders.chat import render_chat
from tiny_tokenizers import text_model

HELLO = [{"role": "user", "content": "Hello"}]


def test_marked_messages() -> None:
    assert render_chat(MARKED, CHATS["system"]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhat is 日本?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render_chat(MARKED, HELLO, enable_thinking=False).endswith("assistant\n<think></think>")
    assert render_chat(MARKED, CHATS["calls"], add_generation_prompt=False, tools=TOOLS) == (
        '<|im_start|>system\n# Tools\n<tools>\n{"type": "function", "function": {"name": "weather",'
        ' "description": "é <b> & \'q\'", "parameters": {"n": [1.5]}}}\n</tools><|im_end|>\n'
        "<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n"
        '{"name": "weather", "arguments": {\n "a": [\n  true\n ],\n "b": "é"\n}}\n</tool_call>'
        "<|im_end|>\n<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n"
    )


def test_special_tokens_and_generation_marks() -> None:
    assert render_chat(BRACKETS, CHATS["several"], special_tokens=SPECIAL) == (
        "<s>[INST] One [/INST]\n Two </s>\n<s>[INST] Three [/INST]\n"
    )
    text = render_chat(HEADERS, CHATS["several"], special_tokens=SPECIAL, date_string="D")
    assert text.startswith("<s><|start_header_id|>system<|end_header_id|>\n\nDate: D\n\n<|eot_id|>")
    assert "<|end_header_id|>\n\nOne<|eot_id|>Two<|eot_id|><|start_header_id|>user" in text
    assert str(datetime.now().year) in render_chat(HEADERS, HELLO, special_tokens=SPECIAL)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("options", [{}, {"add_generation_prompt": False, "tools": TOOLS}])
def test_as_transformers(name: str, chat: str, options: dict[str, Any]) -> None:
    """The same text, or a refusal by both."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()), **SPECIAL
    )
    given = {"add_generation_prompt": True, **options}
    messages, template = CHATS[chat], TEMPLATES[name]
    try:
        expected = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, **given
        )
    except Exception as error:
        with pytest.raises(ValueError) as caught:
            render_chat(template, messages, special_tokens=SPECIAL, **given)
        assert str(error) in str(caught.value)
    else:
        assert render_chat(template, messages, special_tokens=SPECIAL, **given) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ ''.__class__.__mro__ }}", "SecurityError: access to attribute '__class__' of 'str'"),
        ("{{ ''['__class__'] | string }}x{{ ''.__class__.__base__.x }}", "SecurityError"),
        ("{{ '{0.__class__.__mro__}'.format(messages) }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError: access to attribute 'append' of 'list'"),
        ("{{ messages[0].update(a=1) }}", "SecurityError"),
        ("{{ raise_exception.__globals__['sys'] }}", "SecurityError"),
        ("{{ self.__init__.__globals__ }}", "SecurityError"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "SecurityError"),
        ("{{ lipsum.__globals__['os'].system('id') }}", "SecurityError"),
        ("{{ (messages | attr('__class__')).mro() }}", "SecurityError|UndefinedError"),
        ("{% for x in range(999999999) %}{% endfor %}", "OverflowError: Range too big"),
        ("{% include '/etc/passwd' %}", "the chat template fails: TypeError"),
        ("{% import 'os' as os %}", "the chat template fails: TypeError"),
        ("{{ raise_exception('no system') }}", "the chat template fails: TemplateError: no system"),
        ("{{ messages[0].nothing.more }}", "UndefinedError: 'dict object' has no attribute"),
        ("{{ 1 / 0 }}", "the chat template fails: ZeroDivisionError"),
        ("{{ 'a' + 1 }}", "the chat template fails: TypeError"),
        (
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "the chat template fails: RecursionError",
        ),
        ("{% for %}", "the chat template is no Jinja template: Expected an expression"),
        ("{{ a", "the chat template is no Jinja template: "),
        ("{% generation %}", "the chat template is no Jinja template: "),
        ("{{ x | nothing }}", "the chat template is no Jinja template: No filter named 'nothing'"),
        ("{{ open('/etc/passwd') }}", "UndefinedError: 'open' is undefined"),
    ],
)
def test_templates_that_fail(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_chat(template, HELLO)


def test_what_may_not_be_seen_is_written_as_nothing() -> None:
    """As Jinja writes what is undefined; one more attribute of it is an error."""
    assert render_chat("<{{ raise_exception.__globals__ }}{{ tools.__class__ }}>", HELLO) == "<>"


class Fancy:
    """Of a library, with methods that a sandbox knows nothing of."""

    def tofile(self, path: str) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("messages", "options", "error", "message"),
    [
        ("Hello", {}, TypeError, "messages must be a sequence or another iterable of messages"),
        (HELLO[0], {}, TypeError, "messages must be a sequence .* not a dict"),
        (["Hello"], {}, TypeError, "message 0 must be a mapping of role, content, …, not 'Hello'"),
        ([], {}, ValueError, "messages must be one or more, and there are none"),
        ([{"content": Fancy()}], {}, TypeError, "message 0 must be plain data, .* has a Fancy"),
        ([*HELLO, {"content": [np.ones(2)]}], {}, TypeError, "message 1 must .* has a ndarray"),
        (HELLO, {"tools": [Fancy()]}, TypeError, "tools must be plain data"),
        (HELLO, {"tools": {}}, TypeError, "tools must be a sequence .*, not a dict"),
        (HELLO, {"thing": Fancy()}, TypeError, "variables must be plain data"),
    ],
)
def test_messages_that_are_none(
    messages: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        render_chat("", messages, **options)


def test_data_of_derived_classes() -> None:
    class Role(str, enum.Enum):
        USER = "user"

    class Number(enum.IntEnum):
        ONE = 1

    template = "{{ messages[0].role }} {{ messages[0].n }} {{ tools is none }}"
    messages = iter([{"role": Role.USER, "n": Number.ONE}])
    assert render_chat(template, messages) == "user 1 True"
    assert render_chat("{{ messages[0].a[1] }}", [{"a": (1, 2)}]) == "2"


def test_what_a_template_is_given_stays_as_it_is() -> None:
    messages = [{"role": "user", "content": [{"text": "a"}]}]
    before = json.dumps(messages)
    render_chat("{% set x = messages[0] %}{{ x.content[0].text }}", messages)
    assert json.dumps(messages) == before


# --- the templates of a folder --------------------------------------------------------------------


def test_the_prompt_of_a_model(tmp_path: Path) -> None:
    config = {"chat_template": MARKED, "eos_token": "<|im_end|>"}
    model = text_model(tmp_path, tokenizer_config=config)
    text = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert model.chat_text(HELLO) == text
    ids = model.chat_prompt(HELLO)
    assert model.detokenize(ids, keep_special=True) == text
    assert [ids.count(token) for token in (2, 3)] == [2, 1]  # as tokens, not letter by letter
    assert model.chat_text(HELLO, False) == text.removesuffix("<|im_start|>assistant\n")


def test_nothing_is_put_before_a_chat(tmp_path: Path) -> None:
    """The template writes BOS itself."""
    config = {"chat_template": "{{ bos_token }}{{ messages[0].content }}", "bos_token": "<s>"}
    model = text_model(tmp_path, "pieces", tokenizer_config=config)
    assert model.chat_prompt(HELLO).count(1) == 1
    assert model.tokenize("Hello")[0] == 1


def test_templates_by_name(tmp_path: Path) -> None:
    named = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "tools"},
        {"name": "rag", "template": "rag {{ documents | length }}"},
    ]
    model = text_model(tmp_path, tokenizer_config={"chat_template": named})
    assert model.chat_text(HELLO) == "plain"
    assert model.chat_text(HELLO, tools=TOOLS) == "tools"
    assert model.chat_text(HELLO, template="default", tools=TOOLS) == "plain"
    assert model.chat_text(HELLO, template="rag", documents=[{"text": "a"}]) == "rag 1"
    with pytest.raises(ValueError, match="no chat template 'other', but .'default', 'rag', 'tool"):
        model.chat_text(HELLO, template="other")


def test_files_of_templates_come_before_the_setting(tmp_path: Path) -> None:
    model = text_model(tmp_path, tokenizer_config={"chat_template": "old"})
    (tmp_path / "chat_template.jinja").write_bytes(b"{% if true %}\r\nnew\r\n{% endif %}")
    more = tmp_path / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("tools", encoding="utf-8")
    assert model.chat_text(HELLO) == "new\n"
    assert model.chat_text(HELLO, tools=TOOLS) == "tools"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "the model has no chat template: give a prompt"),
        ([], "the model has no chat template: give a prompt"),
        ([{"name": "rag", "template": ""}], r"no chat template 'default', but \['rag'\]"),
        (3, "tokenizer_config.json: chat_template must be a text, or a list of objects"),
        ([{"name": "default"}], "chat_template must be a text, or a list of objects of name and"),
        (["x"], "chat_template must be a text, or a list of objects of name and template, not"),
    ],
)
def test_templates_that_are_none(tmp_path: Path, template: Any, message: str) -> None:
    model = text_model(tmp_path, tokenizer_config={"chat_template": template})
    with pytest.raises(ValueError, match=message):
        model.chat_text(HELLO)


def test_a_template_that_is_not_utf8(tmp_path: Path) -> None:
    model = text_model(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="chat_template.jinja is not UTF-8"):
        model.chat_text(HELLO)


def test_without_jinja(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(
        ImportError, match="chat templates need jinja2: pip install 'numattn.models"
    ):
        render_chat("not seen before", HELLO)


def test_an_old_jinja_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import jinja2

    monkeypatch.setattr(jinja2, "__version__", "3.1.5")
    with pytest.raises(ImportError, match="need jinja2 3.1.6 or later, .*, not 3.1.5"):
        render_chat("not seen before", HELLO)
