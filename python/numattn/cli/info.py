"""`numattn info`: the version, the instruction set and the threads, and why these."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .arguments import Commands


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "info", help="print version, instruction set, threads, and why these"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print it."""
    import numattn as na
    from numattn.models import installed_folder

    na.show_config()
    try:
        model = str(installed_folder())
    except FileNotFoundError as error:
        model = str(error)
    print(f"model of embed and attend: {model}")
