"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from numattn.models import Bert

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return value


def count_from_zero(text: str) -> int:
    """Return a whole number of at least 0."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, not {text!r}")
    return int(text)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --model, --dtype and --threads."""
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="a Hugging Face folder of a BERT-family model (config.json, model.safetensors, "
        "tokenizer.json); by default the installed all-MiniLM-L6-v2",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="how the model's weights are stored (default: %(default)s)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="upper limit of threads")


def load_model(arguments: argparse.Namespace) -> Bert:
    """Return the model that --model names, with --threads in force.

    Raises
    ------
    FileNotFoundError
        If no folder is given and the package with the default one is not installed.
    """
    import numattn as na
    from numattn.models import Bert, installed_folder

    if arguments.threads is not None:
        na.set_num_threads(arguments.threads)
        # The tokenizer's own threads; it reads this when it is first used.
        os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    if arguments.model is not None:
        return Bert.from_folder(arguments.model, dtype=arguments.dtype)
    try:
        folder = installed_folder()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}, or give --model FOLDER") from None
    return Bert.from_folder(folder, dtype=arguments.dtype)
