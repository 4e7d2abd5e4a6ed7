"""`numattn transcribe`: speech in WAV files → text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from numattn._dtypes import STORED

from .arguments import positive
from .progress import add_quiet, progress_bar

if TYPE_CHECKING:
    from .arguments import Commands


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "transcribe",
        help="speech to text",
        description="Transcribe WAV files of 16 kHz, each as soon as the one before is printed: "
        "its text on a line, or with --timestamps a line for each part, with its times in seconds.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a WAV file")
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="a Hugging Face folder of a Whisper (config.json, generation_config.json, "
        "model.safetensors, tokenizer.json), or one of CTranslate2's (model.bin)",
    )
    parser.add_argument(
        "--language", metavar="CODE", help="what is spoken, as en; by default it is found out"
    )
    parser.add_argument(
        "--task",
        choices=("transcribe", "translate"),
        help="the text in the language that is spoken, or in English (default: transcribe)",
    )
    parser.add_argument("--timestamps", action="store_true", help="print when what is said")
    parser.add_argument("--beams", type=positive, metavar="N", help="texts that a search keeps")
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
    """Transcribe what the arguments name."""
    import numattn as na
    from numattn.models import Whisper

    if arguments.threads is not None:
        na.set_num_threads(arguments.threads)
    model = Whisper.from_folder(arguments.model, dtype=arguments.dtype)
    for file in arguments.files:
        with progress_bar(arguments, None, "s") as bar:
            result = model.transcribe(
                file,
                language=arguments.language,
                task=arguments.task,
                timestamps=arguments.timestamps,
                beams=arguments.beams,
                progress=bar.reached,
            )
        if not arguments.timestamps:
            print(" ".join(result.text.split()), flush=True)
            continue
        for segment in result.segments:
            text = " ".join(segment.text.split())
            print(f"{segment.start:.2f}\t{segment.end:.2f}\t{text}", flush=True)
