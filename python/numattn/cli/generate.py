"""`numattn generate`: what a decoder writes after a text, or answers in a chat, as it comes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numattn._dtypes import STORED

from .arguments import positive

if TYPE_CHECKING:
    from numattn.models.decoders.decoder import Decoder

    from .arguments import Commands

# Tokens that a chat may have at least before its pages run out, and those of a page.
CHAT_TOKENS, PAGE = 1 << 14, 16


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "generate",
        help="what a language model writes after a text, or answers",
        description="Write what a decoder (Llama, Mistral, Qwen, Gemma, Phi, GPT-2 …) continues a "
        "text with, as it comes. Without a text, standard input is the text. With --chat the text "
        "is a message, which is answered; without a text each line of standard input is one, and "
        "what was said before belongs to the next answer.",
    )
    parser.add_argument("prompt", nargs="?", metavar="TEXT", help="the text; - is standard input")
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        required=True,
        help="a Hugging Face folder of a decoder (config.json, model.safetensors, tokenizer.json)",
    )
    parser.add_argument("--chat", action="store_true", help="answer, by the model's chat template")
    parser.add_argument("--system", metavar="TEXT", help="with --chat: what comes before it all")
    parser.add_argument(
        "--max-tokens",
        type=positive,
        default=256,
        metavar="N",
        help="upper limit of new tokens, of each answer (default: %(default)s)",
    )
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end before this text; may be given several times",
    )
    add_sampling(parser)
    parser.add_argument(
        "--draft",
        metavar="FOLDER|N",
        help="a smaller model with the same tokens that guesses what comes next; or a number: so "
        "many tokens are guessed by what followed the same words before",
    )
    parser.add_argument(
        "--dtype",
        choices=STORED,
        help="how the model's weights are stored (default: float32; of a GGUF file, as they are "
        "quantised)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="upper limit of threads")
    parser.set_defaults(run=run)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add the arguments by which tokens are chosen."""
    numbers = {
        "--temperature": (
            float,
            "how freely tokens are drawn; 0, the default, takes the likeliest",
        ),
        "--top-k": (int, "draw from the N likeliest"),
        "--top-p": (float, "draw from the likeliest that make up N"),
        "--min-p": (float, "draw from those at least N times as likely as the likeliest"),
        "--repetition-penalty": (float, "make what is there already less likely, above 1"),
        "--seed": (int, "the same seed draws the same text"),
    }
    for name, (kind, what) in numbers.items():
        default = "" if name == "--seed" else " (default: as the model's folder says)"
        parser.add_argument(name, type=kind, metavar="N", help=what + default)


def run(arguments: argparse.Namespace) -> None:
    """Write what the arguments ask for."""
    if arguments.system is not None and not arguments.chat:
        raise ValueError("--system is for --chat")
    if arguments.prompt is None and sys.stdin.isatty() and not arguments.chat:
        raise ValueError("give a text, or one on standard input")
    model = load_decoder(arguments.model, arguments)
    options = {
        "stop": arguments.stop,
        "sampler": sampler_of(model, arguments),
        "draft": draft_of(arguments),
    }
    if arguments.chat:
        answer(model, messages_of(arguments), arguments, options)
    else:
        prompt = arguments.prompt
        if prompt in (None, "-"):
            prompt = read_stdin()
        write(model.stream(prompt, arguments.max_tokens, **options))


def load_decoder(folder: Path, arguments: argparse.Namespace) -> Decoder:
    """Return the model of a folder, with --threads in force.

    Raises
    ------
    ValueError
        If it is no decoder.
    """
    import numattn as na
    from numattn.models import load
    from numattn.models.decoders.decoder import Decoder

    if arguments.threads is not None:
        na.set_num_threads(arguments.threads)
    model = load(folder, dtype=arguments.dtype)
    if not isinstance(model, Decoder):
        raise ValueError(f"{folder} holds a {type(model).__name__}, which writes no text")
    return model


def sampler_of(model: Decoder, arguments: argparse.Namespace) -> Any:
    """Return how tokens are chosen: as the model's folder says, but for what is given."""
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
    given = {name: getattr(arguments, name) for name in names}
    return model.sampler(**{name: value for name, value in given.items() if value is not None})


def draft_of(arguments: argparse.Namespace) -> Any:
    """Return who guesses, if anybody is to."""
    from numattn.models import ModelDraft, NgramDraft

    if arguments.draft is None:
        return None
    if arguments.draft.isascii() and arguments.draft.isdigit():
        return NgramDraft(int(arguments.draft))
    return ModelDraft(load_decoder(Path(arguments.draft), arguments))


def read_stdin() -> str:
    """Return all of standard input, without the end of its last line."""
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8: {error.reason}") from None


def messages_of(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield what is said to the model: the text, or line by line what comes in."""
    if arguments.prompt == "-":
        yield read_stdin()
    elif arguments.prompt is not None:
        yield arguments.prompt
    else:
        yield from lines()


def lines() -> Iterator[str]:
    """Yield the lines of standard input that are not empty; a terminal is asked for each."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError as error:
            raise ValueError(f"standard input is not UTF-8: {error.reason}") from None
        if not line:
            return
        if line.strip():
            yield line.removesuffix("\n")


def answer(
    model: Decoder, said: Iterable[str], arguments: argparse.Namespace, options: dict[str, Any]
) -> None:
    """Answer one message after the other, each with all before it.

    What has been said is kept in pages, so that only what is new is read.
    """
    messages = []
    if arguments.system is not None:
        messages.append({"role": "system", "content": arguments.system})
    prefixes, pages = None, 0
    for text in said:
        messages.append({"role": "user", "content": text})
        prompt = model.chat_prompt(messages)
        needed = -(-(len(prompt) + arguments.max_tokens) // PAGE) + 1
        if prefixes is None or needed > pages:
            pages = max(2 * needed, CHAT_TOKENS // PAGE)
            prefixes = model.new_prefix_cache(pages=pages, page_size=PAGE)
        written = write(model.stream(prompt, arguments.max_tokens, prefixes=prefixes, **options))
        messages.append({"role": "assistant", "content": written})


def write(pieces: Iterable[str]) -> str:
    """Print pieces as they come, and an end of the line; return them together."""
    text = ""
    for piece in pieces:
        print(piece, end="", flush=True)
        text += piece
    if not text.endswith("\n"):
        print(flush=True)
    return text
