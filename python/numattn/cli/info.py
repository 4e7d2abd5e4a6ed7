"""`numattn info`: the version, the instruction set and the threads, and why these."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .arguments import Commands


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "info",
        help="print version, instruction set, threads, and why these",
        description="Print the version, the instruction set and the threads in force, why these, "
        "and where the models are that the other commands use by default.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print it."""
    import numattn as na
    from numattn.models import installed_folder, installed_translator

    na.show_config()
    for commands, place in (
        ("embed, similarity and attend", installed_folder),
        ("translate", installed_translator),
    ):
        try:
            model = str(place())
        except FileNotFoundError as error:
            model = str(error)
        print(f"model of {commands}: {model}")
