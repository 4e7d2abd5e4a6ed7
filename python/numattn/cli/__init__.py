"""The command `numattn`: what models do with texts, images and sound, a service, and pictures.

Each subcommand is one module with `add_parser` and `run`; what is slow to import is imported in
`run`. The exit code is 0, or 2 with one line on stderr for anything the user can mend, 130 after
Ctrl-C, and 1 without a word when whoever reads the output leaves.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from numattn import __version__

from . import (
    attend,
    bench,
    classify,
    completion,
    detect,
    embed,
    generate,
    info,
    serve,
    similarity,
    transcribe,
    translate,
)
from .streams import flush_stdout, note, prepare_streams, release_stdout

# In the order of --help.
COMMANDS = (
    *(embed, similarity, attend, classify, detect),
    *(translate, transcribe, generate, serve),
    *(bench, info, completion),
)


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage text before it."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = OneLineParser(
        prog="numattn", description="Attention for NumPy: embed real text, and look at attention."
    )
    parser.add_argument("--version", action="version", version=f"numattn {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=OneLineParser
    )
    for module in COMMANDS:
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; those of the process by default.
    """
    program = "numattn"
    try:
        prepare_streams()
        try:
            arguments = build_parser().parse_args(argv)
            program = f"numattn {arguments.command}"
            arguments.run(arguments)
        finally:
            # What was printed before an error, --help too; and its own errors are noticed here.
            flush_stdout()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of a pipe left, as `head` does.
        release_stdout()
        return 1
    except (ValueError, OSError, ImportError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        note(program, f"error: {reason}")
        release_stdout()
        return 2
    return 0
