"""What requests for texts have in common: how tokens are chosen, how many, and what ends a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .catalogue import Entry
from .errors import beyond, invalid, too_long
from .fields import Fields, shown
from .sequence import Choose
from .writing import Writing

if TYPE_CHECKING:
    from .limits import Limits

MOST_STOPS = 4  # as OpenAI's own service has it
MOST_STOP_LETTERS = 256
MOST_BIASES = 1024
# Of OpenAI's interface, and not carried out: only what they are without.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "n": (1,),
}


@dataclass(frozen=True)
class TextOptions:
    """How texts of a request are written."""

    sampler: Callable[[], Choose]
    """Each text has one of its own."""
    new_tokens: int | None
    stops: list[str]
    stream: bool
    include_usage: bool
    bias: dict[int, float]
    """What is added to logits of tokens."""


def read_options(fields: Fields, limits: Limits, *names: str, default: int | None) -> TextOptions:
    """Return the options of a request.

    Parameters
    ----------
    fields : Fields
    limits : Limits
    *names : str
        Fields that say how many tokens may follow a prompt, the first that is there.
    default : int, optional
        So many without one; None for as many as there may be.
    """
    for name, values in NEUTRAL.items():
        fields.only(name, *values)
    new_tokens = None
    for name in reversed(names):
        given = fields.integer(name, 1, 2**31)
        if given is not None and given > limits.new_tokens:
            raise beyond(f"{name} is {given}; a text may have {limits.new_tokens}", name)
        new_tokens = new_tokens if given is None else given
    stream, bias = fields.flag("stream"), read_bias(fields)
    return TextOptions(
        sampler=read_sampler(fields, bias),
        new_tokens=default if new_tokens is None else new_tokens,
        stops=read_stops(fields),
        stream=stream,
        include_usage=read_usage(fields, stream),
        bias=bias,
    )


def read_sampler(fields: Fields, bias: dict[int, float]) -> Callable[[], Choose]:
    """Return what makes the sampler of a text."""
    from numattn.models import Sampler

    temperature = fields.number("temperature", 0, 2, 1)
    top_p = fields.number("top_p", 0, 1, 1)
    top_k = fields.integer("top_k", 1, 2**31)
    min_p = fields.number("min_p", 0, 1, 0)
    repetition = fields.number("repetition_penalty", 0.01, 100, 1)
    presence = fields.number("presence_penalty", -2, 2, 0)
    frequency = fields.number("frequency_penalty", -2, 2, 0)
    seed = fields.integer("seed", -(2**63), 2**63 - 1)

    def sampler() -> Choose:
        return Sampler(
            temperature=temperature,
            top_k=top_k,
            top_p=None if top_p == 1 else max(top_p, 1e-9),
            min_p=min_p or None,
            repetition_penalty=repetition,
            presence_penalty=presence,
            frequency_penalty=frequency,
            logit_bias=bias,
            seed=None if seed is None else seed % 2**64,
        )

    return sampler


def read_bias(fields: Fields) -> dict[int, float]:
    """Return what is added to the logits of tokens."""
    value = fields.get("logit_bias")
    if value is None:
        return {}
    good = isinstance(value, dict) and len(value) <= MOST_BIASES
    if not good or not all(
        key.isascii() and key.isdigit() and len(key) < 10 and is_bias(each)
        for key, each in value.items()
    ):
        raise invalid(
            f"logit_bias must be an object of at most {MOST_BIASES} tokens and numbers from -100 "
            f"to 100, not {shown(value)}",
            "logit_bias",
        )
    return {int(key): float(each) for key, each in value.items()}


def is_bias(value: Any) -> bool:
    """Return whether a value may be added to a logit."""
    return type(value) in (int, float) and -100 <= value <= 100


def read_stops(fields: Fields) -> list[str]:
    """Return the strings before which a text ends."""
    value = fields.get("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    good = isinstance(stops, list) and len(stops) <= MOST_STOPS
    if not good or not all(
        isinstance(each, str) and 0 < len(each) <= MOST_STOP_LETTERS for each in stops
    ):
        raise invalid(
            f"stop must be a string or a list of at most {MOST_STOPS}, each of 1 to "
            f"{MOST_STOP_LETTERS} characters, not {shown(value)}",
            "stop",
        )
    return [*stops]


def read_usage(fields: Fields, stream: bool) -> bool:
    """Return whether a stream ends with the number of its tokens."""
    options = fields.get("stream_options")
    if options is None:
        return False
    if not stream or not isinstance(options, dict):
        raise invalid(
            f"stream_options must be an object, and beside stream true, not {shown(options)}",
            "stream_options",
        )
    unknown = {*options} - {"include_usage", "include_obfuscation"}
    if unknown or not all(isinstance(each, bool) for each in options.values()):
        raise invalid(f"stream_options {shown(options)} is not supported", "stream_options")
    return bool(options.get("include_usage", False))


def new_writing(
    entry: Entry, prompt: list[int], options: TextOptions, limits: Limits, name: str
) -> Writing:
    """Return a text that is to be written after a prompt, whose field has that name.

    Raises
    ------
    ApiError
        The prompt is empty, holds what is no token, or leaves less room than was asked for.
    """
    model = entry.model
    if not prompt:
        raise invalid(f"{name} has no token", name)
    wrong = next((each for each in prompt if not 0 <= each < model.vocab_size), None)
    if wrong is not None:
        raise invalid(f"{name} holds the token {wrong}; they are 0 … {model.vocab_size - 1}", name)
    beyond_all = next((each for each in options.bias if each >= model.vocab_size), None)
    if beyond_all is not None:
        raise invalid(
            f"logit_bias names the token {beyond_all}; they are 0 … {model.vocab_size - 1}",
            "logit_bias",
        )
    room = entry.context - len(prompt)
    wanted = options.new_tokens
    if room < (wanted or 1):
        raise too_long(
            entry.context,
            f"{len(prompt)} are in {name} and {wanted or 1} were to follow",
            name,
        )
    return Writing(
        prompt,
        min(room, limits.new_tokens) if wanted is None else wanted,
        options.sampler(),
        model.end_tokens,
        model.detokenizer(prompt),
        options.stops,
    )
