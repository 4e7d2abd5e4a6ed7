"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from numattn._dtypes import STORED

from .whole_file import check_writable

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
    """Return the model of `model_folder`, without a head, with --threads in force.

    Parameters
    ----------
    arguments : argparse.Namespace
        The command's.
    use : {"encode_tokens", "attention_weights"}
        What is wanted of the model. (Encoders of other families have what `Bert` has.)

    Raises
    ------
    ValueError
        If the model has not what is wanted.
    """
    import numattn as na
    from numattn.models import load

    if arguments.threads is not None:
        na.set_num_threads(arguments.threads)
        # The tokenizer's own threads; it reads this when it is first used.
        os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    model = load(model_folder(arguments), dtype=arguments.dtype)
    encoder: Bert = getattr(model, "encoder", model)
    if not hasattr(encoder, use):
        what = "vectors" if use == "encode_tokens" else "attention maps"
        raise ValueError(f"{model_folder(arguments)}: a {type(model).__name__} makes no {what}")
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
