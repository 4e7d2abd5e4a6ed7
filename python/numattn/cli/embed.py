"""`numattn embed`: texts → vectors, in a .npy file or as a table of cosine similarities."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .arguments import add_model_arguments, check_out, load_model, positive
from .cuts import Cuts
from .lines import Lines, open_lines
from .streams import note
from .table import similarity_table
from .whole_file import STDIN, is_stdout, whole_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from numattn.models import Bert

    from .arguments import Commands

# More similarities than these fit no screen.
TABLE_TEXTS = 12
# Lines tokenised together while those before are computed: some batches, and little memory.
PIECE_LINES, PIECE_CHARACTERS = 1024, 1 << 20


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "embed",
        help="texts to vectors; a few texts are compared",
        description="Embed texts: those given, or each line (an empty one too) of a file or of "
        "standard input. Up to 12 are compared with one another; with --out, each becomes one row "
        "of a .npy file, scaled to length 1. A text of more tokens than the model reads is cut, "
        "and named on stderr.",
    )
    parser.add_argument(
        "texts",
        nargs="*",
        metavar="TEXT",
        help="a text; without any, or as -, the lines of standard input are the texts",
    )
    parser.add_argument(
        "--file", type=Path, metavar="LINES", help="a UTF-8 file of one text a line; - is stdin"
    )
    parser.add_argument("--out", type=Path, metavar="VECTORS.npy", help="float32, (texts, size)")
    parser.add_argument(
        "--batch-tokens",
        type=positive,
        default=4096,
        metavar="N",
        help="tokens computed at once (default: %(default)s)",
    )
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Embed what the arguments name."""
    source = source_of(arguments)
    if source is None and arguments.out is None and len(arguments.texts) > TABLE_TEXTS:
        raise ValueError(f"more than {TABLE_TEXTS} texts need --out, not {len(arguments.texts)}")
    if arguments.out is not None:
        check_out(arguments, *([] if source is None else [source]))
    if source is None:
        embed_texts(arguments, arguments.texts, "text")
        return
    with open_lines(source) as lines:
        if arguments.out is not None:
            embed_lines(arguments, lines)
        elif lines.count == 0:
            raise ValueError(f"{lines.name} has no line")
        elif lines.count <= TABLE_TEXTS:
            pieces = lines.pieces(PIECE_LINES, PIECE_CHARACTERS)
            embed_texts(arguments, [line for piece in pieces for line in piece], "line")
        else:
            raise ValueError(
                f"more than {TABLE_TEXTS} texts need --out; {lines.name} has {lines.count} lines"
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


def embed_texts(arguments: argparse.Namespace, texts: Sequence[str], noun: str) -> None:
    """Embed a few texts, and print or save the result."""
    model = load_model(arguments)
    cuts = Cuts(model, noun)
    vectors = model.encode_tokens(cuts.tokenize(texts), batch_tokens=arguments.batch_tokens)
    cuts.report()
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
    with whole_file(arguments.out) as file, progress_bar(lines.count) as advance:
        write_header(file, shape)
        pieces = one_ahead(cuts.tokenize, lines.pieces(PIECE_LINES, PIECE_CHARACTERS))
        with closing(pieces):  # with its thread, whatever happens
            for piece in pieces:
                write_rows(file, embed_piece(model, piece, arguments.batch_tokens, advance))
    cuts.report()
    seconds = time.perf_counter() - start
    say(arguments.out, f"{arguments.out}: {shape[0]} × {shape[1]} float32, in {seconds:.1f} s")


def embed_piece(
    model: Bert,
    lines: list[NDArray[np.int32]],
    batch_tokens: int,
    advance: Callable[[int], object],
) -> NDArray[np.float32]:
    """Return the vectors of some lines, given their token ids."""
    return model.encode_tokens(lines, batch_tokens=batch_tokens, progress=advance)


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
        note("numattn embed", text)
    else:
        print(text)


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[int], object]]:
    """Show a bar on stderr if that is a terminal and tqdm is installed; yield what advances it."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda count: None
        return
    with tqdm(total=total, unit="line", disable=not sys.stderr.isatty(), leave=False) as bar:
        yield bar.update
