"""`numattn transcribe`: speech in sound files → text, subtitles or JSON."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import add_compute_arguments, positive
from .progress import add_quiet, progress_bar
from .transcripts import FORMATS, SUBTITLES, written
from .whole_file import check_writable, whole_file

if TYPE_CHECKING:
    from .arguments import Commands


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "transcribe",
        help="speech to text",
        description="Transcribe sound files, each as soon as the one before is printed: its text "
        "on a line, or with --timestamps a line for each part, with its times in seconds, or with "
        "--words for each word; or as subtitles or JSON. WAV files of 16 kHz are read as they are, "
        "others with pip install 'numattn[speech]'.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a sound file")
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
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        help="what goes before the sound as if it had been said: names to be expected, or a way "
        "of writing",
    )
    parser.add_argument("--timestamps", action="store_true", help="print when what is said")
    parser.add_argument("--words", action="store_true", help="print when each word is said")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="txt",
        help="text, subtitles (srt or vtt), or a line of JSON for each file (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write a file for each FILE into this folder, of its name and the format's ending, "
        "instead of printing",
    )
    parser.add_argument("--beams", type=positive, metavar="N", help="texts that a search keeps")
    add_quiet(parser)
    add_compute_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Transcribe what the arguments name."""
    import numattn as na
    from numattn.models import Whisper
    from numattn.models.files.folder import regular_file

    for file in arguments.files:
        regular_file(file)
    results = result_files(arguments)
    if arguments.threads is not None:
        na.set_num_threads(arguments.threads)
    model = Whisper.from_folder(arguments.model, dtype=arguments.dtype)
    times = arguments.timestamps or arguments.words
    for file, result in zip(arguments.files, results, strict=True):
        with progress_bar(arguments, None, "s") as bar:
            found = model.transcribe(
                file,
                language=arguments.language,
                task=arguments.task,
                prompt=arguments.prompt,
                timestamps=times or arguments.format in SUBTITLES,
                word_timestamps=arguments.words,
                beams=arguments.beams,
                progress=bar.reached,
            )
        text = written(file, found, arguments.format, times, arguments.words)
        if result is None:
            print(text, end="", flush=True)
            continue
        with whole_file(result) as output:
            output.write(text.encode())


def result_files(arguments: argparse.Namespace) -> list[Path | None]:
    """Return the file that each result is written to, or None to be printed, or raise."""
    if arguments.out is None:
        if arguments.format in SUBTITLES and len(arguments.files) > 1:
            raise ValueError(
                f"--format {arguments.format} prints the subtitles of one file, not of "
                f"{len(arguments.files)}: give --out FOLDER"
            )
        return [None] * len(arguments.files)
    found: dict[Path, Path] = {}
    for file in arguments.files:
        result = arguments.out / f"{file.stem}.{arguments.format}"
        if result in found:
            raise ValueError(f"{found[result]} and {file} would both be written to {result}")
        found[result] = file
        check_writable(result, (*arguments.files, *arguments.model.glob("*")))
    return [*found]
