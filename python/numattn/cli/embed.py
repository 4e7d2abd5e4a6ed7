"""`numattn embed`: texts → vectors, in a .npy file or as a table of cosine similarities."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import add_model_arguments, load_model, positive
from .lines import open_lines
from .table import similarity_table
from .whole_file import check_writable, whole_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from numattn.models import Bert

    from .arguments import Commands

# More similarities than these fit no screen.
TABLE_TEXTS = 12
# Lines embedded together: enough that lines of like length are found, and still little memory.
PIECE_LINES, PIECE_CHARACTERS = 4096, 1 << 22


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "embed",
        help="texts to vectors; a few texts are compared",
        description="Embed texts. A few texts on the command line are compared with one another; "
        "of a file, each line (an empty one too) becomes one row of the .npy file, scaled to "
        "length 1.",
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text")
    parser.add_argument(
        "--file", type=Path, metavar="LINES", help="a UTF-8 file of one text a line; - is stdin"
    )
    parser.add_argument("--out", type=Path, metavar="VECTORS.npy", help="float32, (texts, size)")
    parser.add_argument(
        "--batch-tokens",
        type=positive,
        default=4096,
        metavar="N",
        help="tokens computed at once, padding included (default: %(default)s)",
    )
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Embed what the arguments name."""
    if (arguments.file is None) == (not arguments.texts):
        raise ValueError("give texts, or --file, and not both")
    if arguments.file is not None and arguments.out is None:
        raise ValueError("--file needs --out")
    if arguments.out is None and len(arguments.texts) > TABLE_TEXTS:
        raise ValueError(f"more than {TABLE_TEXTS} texts need --out")
    if arguments.out is not None:
        check_writable(arguments.out)
    if arguments.file is not None:
        embed_file(arguments)
    else:
        embed_texts(arguments)


def embed_texts(arguments: argparse.Namespace) -> None:
    """Embed the texts of the command line, and print or save the result."""
    import numpy as np

    model = load_model(arguments)
    tokens = model.tokenize(arguments.texts)
    note_cut(model, tokens.num_truncated)
    vectors = model.encode_tokens(tokens.ids, batch_tokens=arguments.batch_tokens)
    if arguments.out is not None:
        with whole_file(arguments.out) as file:
            np.save(file, vectors)
        print(f"{arguments.out}: {vectors.shape[0]} × {vectors.shape[1]} float32")
    if len(vectors) == 1:
        print(f"{vectors.shape[1]} numbers: {' '.join(f'{x:.4f}' for x in vectors[0, :8])} …")
    elif len(vectors) <= TABLE_TEXTS:
        width = shutil.get_terminal_size().columns
        print(similarity_table(arguments.texts, vectors @ vectors.T, width))


def embed_file(arguments: argparse.Namespace) -> None:
    """Embed each line of a file into a row of a .npy file, a piece of the lines at a time."""
    import numpy as np

    with open_lines(arguments.file) as lines:
        model = load_model(arguments)
        start, cut = time.perf_counter(), 0
        shape = (lines.count, model.config.hidden_size)
        # Rows are written, not mapped: a full disk is then an OSError, and not a SIGBUS.
        with whole_file(arguments.out) as file, progress_bar(lines.count) as advance:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for piece in lines.pieces(PIECE_LINES, PIECE_CHARACTERS):
                vectors, piece_cut = embed_piece(model, piece, arguments.batch_tokens, advance)
                file.write(vectors.astype("<f4", copy=False).tobytes())
                cut += piece_cut
    note_cut(model, cut)
    seconds = time.perf_counter() - start
    print(f"{arguments.out}: {shape[0]} × {shape[1]} float32, in {seconds:.1f} s")


def embed_piece(
    model: Bert, lines: list[str], batch_tokens: int, advance: Callable[[int], object]
) -> tuple[NDArray[np.float32], int]:
    """Return the vectors of some lines, and how many of the lines were cut."""
    tokens = model.tokenize(lines)
    vectors = model.encode_tokens(tokens.ids, batch_tokens=batch_tokens, progress=advance)
    return vectors, tokens.num_truncated


def note_cut(model: Bert, cut: int) -> None:
    """Say on stderr that texts were longer than the model reads."""
    if cut:
        noun = "text has" if cut == 1 else "texts have"
        print(
            f"numattn embed: {cut} {noun} more than {model.max_tokens} tokens; "
            "the rest of each was left out",
            file=sys.stderr,
        )


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
