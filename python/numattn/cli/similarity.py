"""`numattn similarity`: how alike two texts are, and which lines are most like a query."""

from __future__ import annotations

import argparse
import heapq
import json
import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .arguments import add_model_arguments, add_text_arguments, positive, source_of
from .embed import PIECE_CHARACTERS, PIECE_LINES
from .lines import open_lines
from .progress import add_quiet, progress_bar
from .table import fit

if TYPE_CHECKING:
    from .arguments import Commands
    from .scorers import Scorer


class Found(NamedTuple):
    """A text that is compared with a query."""

    score: float
    number: int
    """Of those compared, from 0 on."""
    text: str


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "similarity",
        help="how alike two texts are; the lines most like a query",
        description="Print how alike two texts are: the cosine of their vectors, or the score of a "
        "cross-encoder. With --query, or with --image and a CLIP or SigLIP, print which of many "
        "texts are most like it, best first: of those given, or of the lines of a file or of "
        "standard input.",
    )
    add_text_arguments(parser)
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--query", metavar="TEXT", help="what the texts are compared with")
    asked.add_argument("--image", type=Path, metavar="FILE", help="the same, for a CLIP or SigLIP")
    parser.add_argument(
        "--top",
        type=positive,
        default=10,
        metavar="N",
        help="texts shown of those compared with a query (default: %(default)s)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object a line: the score, and with a query the text and its number",
    )
    add_quiet(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Compare what the arguments name."""
    if arguments.query is None and arguments.image is None:
        compare_two(arguments)
        return
    with texts_of(arguments) as (pieces, count, noun):
        best = most_alike(arguments, pieces, count, noun)
    if arguments.json:
        for each in best:
            line = {"index": each.number, "score": each.score, "text": each.text}
            print(json.dumps(line, ensure_ascii=False))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print("\n".join(rows_of(best, width)))


def compare_two(arguments: argparse.Namespace) -> None:
    """Print how alike two texts are."""
    from .scorers import scorer_of

    if len(arguments.texts) != 2 or arguments.file is not None:
        raise ValueError("give two texts; or --query TEXT, and what it is compared with")
    first, second = arguments.texts
    scorer = scorer_of(arguments, first, "text", "text")
    ((score, _, _),) = found_of(scorer, scorer.prepare([second]), [second], 0, "the score")
    scorer.report()
    print(json.dumps({"score": score}) if arguments.json else f"{score:.4f}")


@contextmanager
def texts_of(arguments: argparse.Namespace) -> Iterator[tuple[Iterable[list[str]], int, str]]:
    """Yield the texts to choose from in pieces, their number, and what one is called."""
    source = source_of(arguments)
    if source is None:
        yield [arguments.texts], len(arguments.texts), "text"
        return
    with open_lines(source) as lines:
        if lines.count == 0:
            raise ValueError(f"{lines.name} has no line")
        yield lines.pieces(PIECE_LINES, PIECE_CHARACTERS), lines.count, "line"


def most_alike(
    arguments: argparse.Namespace, pieces: Iterable[list[str]], count: int, noun: str
) -> list[Found]:
    """Return the texts with the highest scores, best first, and of equal ones the first first.

    The next piece is tokenised, in a thread, while one is computed.
    """
    from numattn.models.encoder.ahead import one_ahead

    from .scorers import scorer_of

    scorer = scorer_of(arguments, arguments.query, "query", noun)
    best: list[Found] = []
    seen = 0
    prepared = one_ahead(lambda piece: (piece, scorer.prepare(piece)), pieces)
    with progress_bar(arguments, count, noun) as advance, closing(prepared):
        for texts, ready in prepared:
            best += found_of(scorer, ready, texts, seen, noun)
            best = heapq.nsmallest(arguments.top, best, key=lambda each: (-each.score, each.number))
            seen += len(texts)
            advance(len(texts))
    scorer.report()
    return best


def found_of(
    scorer: Scorer, prepared: object, texts: Sequence[str], seen: int, noun: str
) -> list[Found]:
    """Return some texts with their scores; `seen` came before them."""
    scores = scorer.scores(prepared).tolist()
    for number, score in enumerate(scores, seen + 1):
        if not math.isfinite(score):
            raise ValueError(f"{noun} {number} gets {score}, which is no score")
    return [
        Found(*each) for each in zip(scores, range(seen, seen + len(texts)), texts, strict=True)
    ]


def rows_of(best: Sequence[Found], width: int | None) -> list[str]:
    """Return a row for each text: its score and the text, shortened to `width` columns if any."""
    scores = [f"{each.score:.4f}" for each in best]
    margin = max(map(len, scores), default=0)
    rows = []
    for score, each in zip(scores, best, strict=True):
        text = " ".join(each.text.split()) or "(empty)"
        if width is not None:
            text = fit(text, max(width - margin - 2, 20)).rstrip()
        rows.append(f"{score:>{margin}}  {text}")
    return rows
