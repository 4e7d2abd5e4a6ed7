"""`numattn embed`: texts → vectors: a .npy file, lines of JSON, or a table of similarities."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .arguments import (
    add_model_arguments,
    add_text_arguments,
    check_out,
    load_model,
    positive,
    source_of,
)
from .cuts import Cuts
from .json_lines import text_sink, vector_line
from .lines import Lines, arriving_stdin, open_lines
from .progress import add_quiet, progress_bar
from .streams import note
from .table import similarity_table
from .whole_file import STDIN, is_stdout, whole_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from numattn.models import Bert

    from .arguments import Commands

PROGRAM = "numattn embed"
# More similarities than these fit no screen.
TABLE_TEXTS = 12
TOO_MANY = f"more than {TABLE_TEXTS} texts need --out or --json"
# Lines tokenised together while those before are computed: some batches, and little memory.
PIECE_LINES, PIECE_CHARACTERS = 1024, 1 << 20


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "embed",
        help="texts to vectors; a few texts are compared",
        description="Embed texts: those given, or each line (an empty one too) of a file or of "
        "standard input. Up to 12 are compared with one another; with --out, each becomes one row "
        'of a .npy file; with --json, each becomes a line {"index": 0, "embedding": [...]}, '
        "standard input's as they come. A text of more tokens than the model reads is cut, and "
        "named on stderr.",
    )
    add_text_arguments(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write a .npy file of float32, (texts, size); with --json its lines",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object a line: the text's number from 0 on, and its vector",
    )
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="scale vectors to length 1, so that their products are cosines; they are, unless "
        "--no-normalize is given, whatever the model's folder says",
    )
    parser.add_argument(
        "--batch-tokens",
        type=positive,
        default=4096,
        metavar="N",
        help="tokens computed at once, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="texts computed at once, at most (default: as many as --batch-tokens allows)",
    )
    add_quiet(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Embed what the arguments name."""
    source = source_of(arguments)
    check_batches(arguments)
    if arguments.out is not None:
        check_out(arguments, *([] if source is None else [source]))
    if arguments.json:
        embed_as_json(arguments, source)
    elif source is None:
        if arguments.out is None and len(arguments.texts) > TABLE_TEXTS:
            raise ValueError(f"{TOO_MANY}, not {len(arguments.texts)}")
        embed_texts(arguments, arguments.texts, "text")
    else:
        with open_lines(source) as lines:
            embed_file(arguments, lines)


def check_batches(arguments: argparse.Namespace) -> None:
    """Raise ValueError if so many texts are never computed at once, whatever they are."""
    texts, tokens = arguments.batch_size, arguments.batch_tokens
    if texts is not None and texts > tokens:
        raise ValueError(
            f"--batch-size {texts} and --batch-tokens {tokens} contradict each other: {texts} "
            f"texts have at least {texts} tokens"
        )


def embed_file(arguments: argparse.Namespace, lines: Lines) -> None:
    """Embed lines into a .npy file, or compare a few."""
    if arguments.out is not None:
        embed_lines(arguments, lines)
    elif lines.count == 0:
        raise ValueError(f"{lines.name} has no line")
    elif lines.count <= TABLE_TEXTS:
        pieces = lines.pieces(PIECE_LINES, PIECE_CHARACTERS)
        embed_texts(arguments, [line for piece in pieces for line in piece], "line")
    else:
        raise ValueError(f"{TOO_MANY}; {lines.name} has {lines.count} lines")


def embed_texts(arguments: argparse.Namespace, texts: Sequence[str], noun: str) -> None:
    """Embed a few texts, and print or save the result."""
    model = load_model(arguments)
    cuts = Cuts(model, noun)
    vectors = embed_piece(model, cuts.tokenize(texts), arguments)
    cuts.report(PROGRAM)
    if arguments.out is not None:
        with whole_file(arguments.out) as file:
            write_header(file, vectors.shape)
            write_rows(file, vectors)
        say(arguments.out, f"{arguments.out}: {vectors.shape[0]} × {vectors.shape[1]} float32")
    elif len(vectors) == 1:
        print(f"{vectors.shape[1]} numbers: {' '.join(f'{x:.4f}' for x in vectors[0, :8])} …")
    else:
        width = shutil.get_terminal_size().columns
        print(similarity_table(texts, vectors @ vectors.T, width))


def embed_lines(arguments: argparse.Namespace, lines: Lines) -> None:
    """Embed each line into a row of a .npy file, a piece of the lines at a time.

    The next piece is tokenised, in a thread, while one is computed.
    """
    from numattn.models.encoder.ahead import one_ahead

    model = load_model(arguments)
    start, cuts = time.perf_counter(), Cuts(model, "line")
    shape = (lines.count, model.config.hidden_size)
    with whole_file(arguments.out) as file, progress_bar(arguments, lines.count, "line") as advance:
        write_header(file, shape)
        pieces = one_ahead(cuts.tokenize, lines.pieces(PIECE_LINES, PIECE_CHARACTERS))
        with closing(pieces):  # with its thread, whatever happens
            for piece in pieces:
                write_rows(file, embed_piece(model, piece, arguments, advance))
    cuts.report(PROGRAM)
    seconds = time.perf_counter() - start
    say(arguments.out, f"{arguments.out}: {shape[0]} × {shape[1]} float32, in {seconds:.1f} s")


def embed_as_json(arguments: argparse.Namespace, source: Path | None) -> None:
    """Write a line of JSON for each text: those of standard input as they come."""
    model = load_model(arguments)
    cuts = Cuts(model, "text" if source is None else "line")
    count, out = 0, arguments.out
    with texts_of(arguments, source, cuts) as (pieces, total), text_sink(out) as write:
        with progress_bar(arguments, total, "text", prints=out is None) as advance:
            for piece in pieces:
                vectors = embed_piece(model, piece, arguments, advance)
                write("".join(vector_line(n, each) for n, each in enumerate(vectors, count)))
                count += len(vectors)
    cuts.report(PROGRAM)
    if out is not None:
        say(out, f"{out}: {count} × {model.config.hidden_size} numbers, as JSON")


@contextmanager
def texts_of(
    arguments: argparse.Namespace, source: Path | None, cuts: Cuts
) -> Iterator[tuple[Iterable[list[NDArray[np.int32]]], int | None]]:
    """Yield the token ids of all texts, in pieces, and how many texts there are if that is known.

    Of a file, the next piece is tokenised in a thread while one is computed. Of standard input, no
    piece waits for the next.
    """
    from numattn.models.encoder.ahead import one_ahead

    if source is None:
        yield [cuts.tokenize(arguments.texts)], len(arguments.texts)
    elif source == STDIN:
        yield map(cuts.tokenize, arriving_stdin(PIECE_LINES)), None
    else:
        with open_lines(source) as lines:
            pieces = one_ahead(cuts.tokenize, lines.pieces(PIECE_LINES, PIECE_CHARACTERS))
            with closing(pieces):  # with its thread, whatever happens
                yield pieces, lines.count


def embed_piece(
    model: Bert,
    texts: list[NDArray[np.int32]],
    arguments: argparse.Namespace,
    advance: Callable[[int], object] | None = None,
) -> NDArray[np.float32]:
    """Return the vectors of some texts, given their token ids."""
    import numpy as np

    size = arguments.batch_size or max(len(texts), 1)
    parts = [
        model.encode_tokens(
            texts[begin : begin + size],
            batch_tokens=arguments.batch_tokens,
            normalize=arguments.normalize,
            progress=advance,
        )
        for begin in range(0, max(len(texts), 1), size)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Write what comes before the numbers of a .npy file.

    np.save would ask for the place in the file, which a FIFO has not, and tells nothing of the
    reason when a disk is full. Nor are rows mapped: a full disk would be a SIGBUS.
    """
    import numpy as np

    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def write_rows(file: BinaryIO, vectors: NDArray[np.float32]) -> None:
    """Write the rows that come next."""
    file.write(vectors.astype("<f4", copy=False).tobytes())


def say(out: Path, text: str) -> None:
    """Print a line on stdout, unless the vectors themselves went there."""
    if is_stdout(out):
        note(PROGRAM, text)
    else:
        print(text)
