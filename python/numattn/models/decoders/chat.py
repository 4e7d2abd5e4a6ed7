"""Chat messages → the text of a prompt, by a Jinja template as transformers renders it.

A template comes from whoever made the model's folder, and is a program. It runs in Jinja's sandbox,
sees nothing but plain data, and can change none of it; one that never ends, or asks for more memory
than there is, is not stopped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from ..texts import in_order

if TYPE_CHECKING:
    from jinja2 import Template

# {% generation %} … {% endgeneration %} mark for training what an assistant says.
MARKS = ((re.compile(r"\{%([-+]?)\s*generation\s*([-+]?)%\}"), r"{%\1 if true \2%}"),
         (re.compile(r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}"), r"{%\1 endif \2%}"))  # fmt: skip

# What a message calls its reasoning, of which the first is what most templates read.
REASONING = ("reasoning_content", "thinking", "reasoning")


def render_chat(
    template: str,
    messages: Iterable[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    tools: Iterable[Mapping[str, Any]] | None = None,
    special_tokens: Mapping[str, str] | None = None,
    **variables: Any,
) -> str:
    """Return what a template makes of messages.

    Parameters
    ----------
    template : str
        In Jinja, as the chat_template of a tokenizer_config.json.
    messages : iterable of mappings
        Of "role", "content" and whatever else the template knows, in plain data. What is None is
        left out.
    add_generation_prompt : bool
        Let the prompt end with what begins an answer.
    tools : iterable of mappings, optional
        What the model may call, each described by a JSON schema.
    special_tokens : mapping, optional
        Of "bos_token" and so on.
    **variables
        Whatever else the template knows, as `enable_thinking`; they go before special tokens.

    Raises
    ------
    ImportError
        If the library jinja2 is not installed.
    TypeError
        If messages, tools or variables are not plain data.
    ValueError
        If the template is no Jinja, refuses the messages, fails, or does what it may not.

    Examples
    --------
    >>> template = "{% for m in messages %}<{{ m.role }}> {{ m.content }}\\n{% endfor %}"
    >>> render_chat(template, [{"role": "user", "content": "Hi"}])
    '<user> Hi\\n'
    """
    compiled = compiled_template(template)
    given = [plain_message(f"message {n}", each) for n, each in enumerate(listed(messages))]
    if not given:
        raise ValueError("messages must be one or more, and there are none")
    context = {**(special_tokens or {}), **plain("variables", variables)}
    context["tools"] = (
        None if tools is None else plain("tools", [*in_order("tools", tools, "maps")])
    )
    context["documents"] = context.get("documents")
    context |= {"messages": given, "add_generation_prompt": bool(add_generation_prompt)}
    try:
        return compiled.render(context)
    except MemoryError:
        raise
    except Exception as error:  # of any class: it is a program
        raise ValueError(f"the chat template fails: {type(error).__name__}: {error}") from None


def listed(messages: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Return messages as a list, or raise TypeError."""
    return [*in_order("messages", messages, "messages, each a mapping")]


def plain_message(name: str, message: Any) -> dict[str, Any]:
    """Return a message of what is not None, as templates expect."""
    if not isinstance(message, Mapping):
        raise TypeError(f"{name} must be a mapping of role, content, …, not {message!r}")
    given = {str(key): plain(name, each) for key, each in message.items() if each is not None}
    for key in REASONING:
        if key in given:
            return {"thinking": given[key], **given, REASONING[0]: given[key]}
    return given


def plain(name: str, value: Any) -> Any:
    """Return a copy in Python's own types of what JSON can say, or raise TypeError.

    Anything else has methods, which the sandbox would let a template call.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    # Of classes derived from these, as of an enumeration.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {str(key): plain(name, each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(name, each) for each in value]
    raise TypeError(f"{name} must be plain data, as of JSON, and has a {type(value).__name__}")


@lru_cache(maxsize=16)
def compiled_template(template: str) -> Template:
    """Return a template that can be rendered, as transformers makes it.

    Raises
    ------
    ImportError
        If the library jinja2 is not installed, or has known ways out of its sandbox.
    ValueError
        If it is no template.
    """
    try:
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise ImportError("chat templates need jinja2: pip install 'numattn[models]'") from None
    if tuple(map(int, re.findall(r"\d+", jinja2.__version__)[:3])) < (3, 1, 6):
        raise ImportError(
            f"chat templates need jinja2 3.1.6 or later, whose sandbox has no known way out, not "
            f"{jinja2.__version__}: pip install 'numattn[models]'"
        )

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    for mark, replacement in MARKS:
        template = mark.sub(replacement, template)
    try:
        return environment.from_string(template)
    except (jinja2.TemplateError, RecursionError) as error:
        raise ValueError(f"the chat template is no Jinja template: {error}") from None


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON without the escapes for HTML that Jinja's own filter makes."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def strftime_now(format: str) -> str:
    """Return the time as a format says."""
    return datetime.now().strftime(format)
