"""`numattn completion`: a script by which a shell completes this command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arguments import Commands

SHELLS = ("bash", "zsh", "fish")
# Arguments that name files although they are read as text: what they name depends on the model.
FILES, FOLDERS = ("INPUT",), ("FOLDER", "FOLDER|N")


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "completion",
        help="a script by which a shell completes this command",
        description="Print a script that completes commands, options, choices and files. In bash: "
        'eval "$(numattn completion bash)", there or in ~/.bashrc; in zsh into a file _numattn of '
        "a folder of $fpath; in fish into ~/.config/fish/completions/numattn.fish.",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the script."""
    from . import build_parser

    try:
        import shtab
    except ImportError:
        raise ImportError("shtab is not installed: pip install 'numattn[completion]'") from None
    parser = build_parser()
    prepare(parser, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(parser, shell=arguments.shell), end="")


def prepare(parser: argparse.ArgumentParser, file: Any, folder: Any) -> None:
    """Say of a parser's arguments, and of those of its subcommands, which are files or folders.

    Subcommands are described as --help lists them, and not as their own does.
    """
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for short in action._choices_actions:
                action.choices[short.dest].description = short.help
            for each in action.choices.values():
                prepare(each, file, folder)
        elif action.metavar in FOLDERS:
            action.complete = folder  # type: ignore[attr-defined]
        elif action.type is Path or action.metavar in FILES:
            action.complete = file  # type: ignore[attr-defined]
