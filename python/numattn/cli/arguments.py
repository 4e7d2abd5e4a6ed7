"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from numattn._dtypes import STORED

from .whole_file import STDIN, check_writable

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


def add_text_arguments(parser: argparse.ArgumentParser) -> None:
    """Add texts and --file, which `source_of` reads."""
    parser.add_argument(
        "texts",
        nargs="*",
        metavar="TEXT",
        help="a text; without any, or as -, the lines of standard input are the texts",
    )
    parser.add_argument(
        "--file", type=Path, metavar="LINES", help="a UTF-8 file of one text a line; - is stdin"
    )


def source_of(arguments: argparse.Namespace) -> Path | None:
    """Return the file whose lines are the texts; None if the texts are arguments.

    Raises
    ------
    ValueError
        If there are texts and a file, or neither and standard input is a terminal.
    """
    if arguments.file is not None:
        if arguments.texts:
            raise ValueError("give texts, or --file, and not both")
        return Path(arguments.file)
    if not arguments.texts and sys.stdin.isatty():
        raise ValueError("give texts, or --file, or lines on standard input")
    return STDIN if arguments.texts in ([], [str(STDIN)]) else None


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --model, --dtype and --threads."""
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="a Hugging Face folder of an encoder (config.json, model.safetensors, "
        "tokenizer.json); by default the installed all-MiniLM-L6-v2",
    )
    add_compute_arguments(parser)


def add_compute_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --dtype and --threads."""
    parser.add_argument(
        "--dtype",
        choices=STORED,
        default="float32",
        help="how the model's weights are stored (default: %(default)s)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="upper limit of threads")


def model_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder that --model names, or that of the installed model.

    Raises
    ------
    FileNotFoundError
        If no folder is given and the package with the default one is not installed.
    """
    from numattn.models import installed_folder

    if arguments.model is not None:
        return Path(arguments.model)
    try:
        return installed_folder()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}, or give --model FOLDER") from None


def load_model(arguments: argparse.Namespace, use: str = "encode_tokens") -> Bert:
    """Return the encoder of `model_folder`, without a head, with --threads in force.

    Raises
    ------
    ValueError
        As `encoder_of`.
    """
    return encoder_of(load_whole(arguments), model_folder(arguments), use)


def load_whole(arguments: argparse.Namespace) -> Any:
    """Return the model of `model_folder` with its head, with --threads in force."""
    import numattn as na
    from numattn.models import load

    if arguments.threads is not None:
        na.set_num_threads(arguments.threads)
        # The tokenizer's own threads; it reads this when it is first used.
        os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    return load(model_folder(arguments), dtype=arguments.dtype)


def encoder_of(model: Any, folder: Path, use: str = "encode_tokens") -> Bert:
    """Return a model without its head.

    Parameters
    ----------
    model : model
        Of whatever class.
    folder : Path
        Where it is from.
    use : {"encode_tokens", "attention_weights"}
        What is wanted of the model. (Encoders of other families have what `Bert` has.)

    Raises
    ------
    ValueError
        If the model has not what is wanted.
    """
    encoder: Bert = getattr(model, "encoder", model)
    if not hasattr(encoder, use):
        what = "vectors" if use == "encode_tokens" else "attention maps"
        raise ValueError(f"{folder}: a {type(model).__name__} makes no {what}")
    return encoder


def check_out(arguments: argparse.Namespace, *inputs: Path) -> None:
    """Raise unless --out can be written, and is neither an input nor a file of the model.

    Raises
    ------
    OSError, ValueError
        As `check_writable`.
    """
    folder = model_folder(arguments)
    check_writable(arguments.out, (*inputs, *folder.glob("*"), *folder.glob("*/*")))
