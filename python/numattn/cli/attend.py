"""`numattn attend`: what one word of a sentence attends to, as a list and as a picture."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .arguments import add_model_arguments, count_from_zero, load_model, positive
from .whole_file import check_writable, whole_file
from .words import Word, find_word, split_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .arguments import Commands
    from .picture import AttentionMap

# Words listed for the head that is drawn, and heads listed beside it.
LISTED_WORDS, LISTED_HEADS = 6, 4
# Tokens from which on it can be told whether a head only looks at the neighbour.
NEIGHBOUR_TOKENS = 4


class Look(NamedTuple):
    """How much the word looks at another one in some head; `layer` and `head` count from 0."""

    weight: float
    layer: int
    head: int
    target: Word


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "attend",
        help="draw what a word of a sentence attends to",
        description="Draw an attention map of a sentence and print what one of its words attends "
        "to. Without --layer or --head, of those heads the one is taken in which the word looks "
        "most at one other word. Heads that look at the neighbouring token, whatever it is, are "
        "left aside in this choice.",
    )
    parser.add_argument("sentence", metavar="SENTENCE")
    parser.add_argument("--word", required=True, help="the word that attends")
    parser.add_argument(
        "--nth", type=positive, default=1, metavar="N", help="which of several equal words"
    )
    parser.add_argument("--at", metavar="WORD", help="choose the head that looks most at this word")
    parser.add_argument("--layer", type=count_from_zero, metavar="L", help="counted from 0")
    parser.add_argument("--head", type=count_from_zero, metavar="H", help="counted from 0")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="MAP.png", help="or .svg or .pdf"
    )
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Choose the head, print and draw."""
    from numattn.models.texts import check_text

    from .picture import AttentionMap, check_format

    check_writable(arguments.out)
    check_format(arguments.out)
    check_text(arguments.sentence)
    model = load_model(arguments)
    encoding = model.tokenizer.encode(arguments.sentence)
    if encoding.overflowing:
        print(
            f"numattn attend: the sentence has more than {model.max_tokens} tokens; "
            "the rest was left out",
            file=sys.stderr,
        )
    parts = split_words(arguments.sentence, encoding)
    word = find_word(parts, arguments.word, arguments.nth)
    targets = [part for part in parts if part.is_word and part is not word]
    if arguments.at is not None:
        targets = [find_word(targets, arguments.at)]
    if not targets:
        raise ValueError(f"the sentence has no other word than {word.text!r}")

    maps = model.attention_weights(encoding.ids, arguments.layer, arguments.head)
    maps = maps.reshape(
        model.config.num_layers if arguments.layer is None else 1,
        model.config.num_heads if arguments.head is None else 1,
        *maps.shape[-2:],
    )
    origin = (arguments.layer or 0, arguments.head or 0)
    looks = strongest_looks(maps, word, targets, origin)
    neighbourly = neighbour_heads(maps, encoding.special_tokens_mask, origin)
    if len(neighbourly) == len(looks):
        neighbourly = set()  # none other is left to choose from
    looks = [look for look in looks if (look.layer, look.head) not in neighbourly]
    best = looks[0]
    chosen = maps[best.layer - origin[0], best.head - origin[1]]
    report(word, parts, chosen, looks, neighbourly)
    picture = AttentionMap(
        sentence=arguments.sentence,
        tokens=encoding.tokens,
        parts=parts,
        word=word,
        weights=chosen,
        title=f"“{word.text}” looks at “{best.target.text}”",
        subtitle=f"with {best.weight:.0%} of its attention in layer {best.layer}, head {best.head} "
        "(counted from 0)",
    )
    save(picture, arguments.out)
    print(f"{arguments.out}: the attention map")


def save(picture: AttentionMap, path: Path) -> None:
    """Draw the picture into a file, and say so if its font lacks signs of the sentence."""
    from .picture import draw

    with whole_file(path) as file, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        draw(picture, file, path.suffix)
    if any("missing from font" in str(warning.message) for warning in caught):
        print("numattn attend: the picture's font lacks some of the signs", file=sys.stderr)


def strongest_looks(
    maps: NDArray[np.float32], word: Word, targets: Sequence[Word], origin: tuple[int, int]
) -> list[Look]:
    """Return for each head of maps (L, H, S, S) the target it weighs most; the most weighed first.

    The rows of a word's tokens are averaged, and the columns of a target's tokens added, so that
    the weights of all words, signs and special tokens add up to 1. `origin` is the layer and head
    of maps[0, 0].
    """
    rows = maps[:, :, word.tokens].mean(axis=2)
    weights = [rows[:, :, target.tokens].sum(axis=2) for target in targets]
    looks = []
    for layer in range(maps.shape[0]):
        for head in range(maps.shape[1]):
            weight, index = max((float(each[layer, head]), -i) for i, each in enumerate(weights))
            looks.append(Look(weight, origin[0] + layer, origin[1] + head, targets[-index]))
    return sorted(looks, key=lambda look: -look.weight)


def neighbour_heads(
    maps: NDArray[np.float32], special: Sequence[int], origin: tuple[int, int]
) -> set[tuple[int, int]]:
    """Return the heads that weigh the token before (or after) by more than half on average.

    They look at a place and not at a word, and so say nothing about this sentence.
    """
    import numpy as np

    real = np.flatnonzero(np.asarray(special) == 0)
    if real.size < NEIGHBOUR_TOKENS:
        return set()
    before = maps[:, :, real[1:], real[:-1]].mean(axis=2)
    after = maps[:, :, real[:-1], real[1:]].mean(axis=2)
    found = np.argwhere(np.maximum(before, after) > 0.5) + origin
    return {(int(layer), int(head)) for layer, head in found}


def report(
    word: Word,
    parts: Sequence[Word],
    weights: NDArray[np.float32],
    looks: Sequence[Look],
    neighbourly: set[tuple[int, int]],
) -> None:
    """Print what the word attends to in the map (S, S) of the first look, and the other looks."""
    import numpy as np

    best, *others = looks
    pieces = f", the mean of its {len(word.tokens)} tokens" if len(word.tokens) > 1 else ""
    print(
        f'"{word.text}"{pieces}, in layer {best.layer}, head {best.head} (counted from 0) looks at'
    )
    row = weights[np.array(word.tokens)].mean(axis=0)
    amounts = [float(row[np.array(part.tokens)].sum()) for part in parts]
    for index in np.argsort(np.negative(amounts), kind="stable")[:LISTED_WORDS]:
        itself = " (itself)" if parts[index] is word else ""
        print(f"  {amounts[index]:.3f}  {parts[index].text}{itself}")
    if others:
        listed = (
            f"layer {look.layer} head {look.head} at {look.target.text} ({look.weight:.3f})"
            for look in others[:LISTED_HEADS]
        )
        print(f"next heads: {', '.join(listed)}")
    if neighbourly:
        listed = (f"layer {layer} head {head}" for layer, head in sorted(neighbourly))
        print(f"left aside, since they look at the neighbouring token: {', '.join(listed)}")
