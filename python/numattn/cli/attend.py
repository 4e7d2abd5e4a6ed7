"""`numattn attend`: what one word of a sentence attends to, as a list and as a picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .arguments import add_model_arguments, check_out, count_from_zero, load_model, positive
from .cuts import tokens_left_out
from .picture import AttentionMap, check_format, draw
from .streams import note
from .whole_file import check_writable, is_stdout, whole_file
from .words import (
    Found,
    Span,
    Word,
    find_word,
    listing,
    same_letters,
    split_words,
    with_places,
    word_spans,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Encoding

    from numattn.models import Bert

    from .arguments import Commands

PROGRAM = "numattn attend"
# What tokenizers put in the place of what their vocabulary lacks.
UNKNOWN = ("[UNK]", "<unk>")

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
        help="list, and draw, what a word of a sentence attends to",
        description="Print what one of the words of a sentence attends to, and with --out draw the "
        "attention map. Without --layer or --head, of those heads the one is taken in which the "
        "word looks most at one other word. Heads that look at the neighbouring token, whatever it "
        "is, are left aside in this choice.",
    )
    parser.add_argument(
        "sentence",
        metavar="SENTENCE",
        nargs="?",
        help="a text; its words are listed if --word is none of them",
    )
    parser.add_argument(
        "--word",
        help="the word that attends, or several that follow one another; in upper or lower case if "
        "it is not there as spelled",
    )
    parser.add_argument(
        "--nth", type=positive, default=1, metavar="N", help="which of several equal words"
    )
    parser.add_argument("--at", metavar="WORD", help="choose the head that looks most at this word")
    parser.add_argument("--layer", type=count_from_zero, metavar="L", help="counted from 0")
    parser.add_argument("--head", type=count_from_zero, metavar="H", help="counted from 0")
    parser.add_argument("--out", type=Path, metavar="MAP.png", help="the picture; or .svg, .pdf")
    parser.add_argument(
        "--rollout",
        action="store_true",
        help="instead of one head: what is looked at through all layers (Abnar and Zuidema, 2020)",
    )
    parser.add_argument(
        "--image",
        type=Path,
        metavar="FILE",
        help="instead of a sentence: which patches of an image a vision model looks at; without "
        "--head the mean over heads, without --layer the last layer",
    )
    parser.add_argument(
        "--pattern",
        metavar="NAME:N,...",
        help="instead of a sentence: which blocks a pattern of numattn.patterns lists, and its "
        "picture with --out; longformer:4096,512,1",
    )
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Choose the head, print and draw."""
    if arguments.rollout and not (arguments.layer is None and arguments.head is None):
        raise ValueError("--rollout goes without --layer and --head")
    if arguments.pattern is not None:
        show_pattern(arguments)
        return
    if arguments.image is not None:
        from .attend_image import attend_image

        attend_image(arguments)
        return
    if arguments.sentence is None or arguments.word is None:
        raise ValueError("SENTENCE and --word are required, or --pattern, or --image")
    if arguments.out is not None:
        check_out(arguments)
        check_format(arguments.out)
    sentence = arguments.sentence
    found = find_chosen(arguments)
    model = load_model(arguments, "attention_weights")
    model.tokenize([sentence])  # refuses what is not Unicode
    encoding = model.tokenizer.encode(sentence)
    spans = with_places(word_spans(sentence), [each.span for each in found])
    parts = split_words(sentence, spans, encoding)
    word, *targets = (part_at(sentence, parts, each.span) for each in found)
    if arguments.at is None:
        targets = [part for part in parts if part.is_word and part is not word]
    if not targets:
        raise ValueError(f"the sentence has no other word than {word.text!r}")

    maps = maps_of(model, encoding.ids, arguments)
    origin = (arguments.layer or 0, arguments.head or 0)
    looks = strongest_looks(maps, word, targets, origin)
    neighbourly = neighbour_heads(maps, encoding.special_tokens_mask, origin)
    if len(neighbourly) == len(looks):
        neighbourly = set()  # none other is left to choose from
    looks = [look for look in looks if (look.layer, look.head) not in neighbourly]
    best = looks[0]
    where = f"in layer {best.layer}, head {best.head} (counted from 0)"
    if arguments.rollout:
        where = "through all layers (rollout)"
    weights = maps[best.layer - origin[0], best.head - origin[1]]
    for each in found:
        if each.note:
            note(PROGRAM, each.note)
    note_tokens(sentence, model, encoding, parts)
    aside = arguments.out is not None and is_stdout(arguments.out)
    with redirect_stdout(sys.stderr if aside else sys.stdout):
        report(word, parts, weights, looks, neighbourly, where)
    if arguments.out is not None:
        picture = AttentionMap(
            sentence=sentence,
            tokens=encoding.tokens,
            parts=parts,
            word=word,
            weights=weights,
            title=f"“{word.text}” looks at “{best.target.text}”",
            subtitle=f"with {best.weight:.0%} of its attention {where}",
        )
        save(picture, arguments.out)


def maps_of(model: Bert, ids: Sequence[int], arguments: argparse.Namespace) -> NDArray[np.float32]:
    """Return the maps (L, H, S, S) of the layers and heads asked for, or the one of a rollout."""
    from numattn.models import attention_rollout

    maps = model.attention_weights(ids, arguments.layer, arguments.head)
    if arguments.rollout:
        return attention_rollout(maps)[None, None]
    return maps.reshape(
        model.config.num_layers if arguments.layer is None else 1,
        model.config.num_heads if arguments.head is None else 1,
        *maps.shape[-2:],
    )


def show_pattern(arguments: argparse.Namespace) -> None:
    """Print what a pattern lists, and draw it."""
    from .pattern import draw_pattern, read_pattern

    if arguments.sentence is not None or arguments.word is not None:
        raise ValueError("--pattern takes neither SENTENCE nor --word")
    if arguments.image is not None or arguments.rollout:
        raise ValueError("--pattern takes neither --image nor --rollout")
    path = arguments.out
    if path is not None:
        check_writable(path, ())
        check_format(path)
    mask = read_pattern(arguments.pattern)
    with redirect_stdout(sys.stderr if path is not None and is_stdout(path) else sys.stdout):
        print(mask)
    if path is None:
        return
    with whole_file(path) as file:
        file.write(draw_pattern(mask, arguments.pattern, path.suffix))
    if not is_stdout(path):
        print(f"{path}: the pattern")


def find_chosen(arguments: argparse.Namespace) -> list[Found]:
    """Return where --word stands in the sentence, and --at if it is given."""
    sentence, spans = arguments.sentence, word_spans(arguments.sentence)
    word = find_word(sentence, spans, arguments.word, arguments.nth)
    if arguments.at is None:
        return [word]
    start, end = word.span
    others = [span for span in spans if span[1] <= start or end <= span[0]]
    try:
        return [word, find_word(sentence, others, arguments.at)]
    except ValueError:
        if same_letters(sentence[start:end], arguments.at, fold=True):
            raise ValueError(f"--at {arguments.at!r} is the word that attends") from None
        raise


def part_at(sentence: str, parts: Sequence[Word], span: Span) -> Word:
    """Return the word that stands at a place."""
    for part in parts:
        if part.is_word and part.span == span:
            return part
    raise ValueError(f"{sentence[slice(*span)]!r} is not among the tokens that the model reads")


def note_tokens(sentence: str, model: Bert, encoding: Encoding, parts: Sequence[Word]) -> None:
    """Say on stderr what of the sentence the model does not get to see."""
    cut = tokens_left_out(encoding)
    if cut:
        note(PROGRAM, f"the model reads {model.max_tokens} tokens of the sentence; left out: {cut}")
    unknown = {model.tokenizer.token_to_id(name) for name in UNKNOWN}
    unseen = [part.span for part in parts if any(encoding.ids[i] in unknown for i in part.tokens)]
    if unseen:
        note(
            PROGRAM,
            f"unknown to the model, which sees a token that says nothing of the word: "
            f"{listing(sentence, unseen)}",
        )


def save(picture: AttentionMap, path: Path) -> None:
    """Draw the picture into a file, and say where it is and what it lacks."""
    content, lacks = draw(picture, path.suffix)
    for lack in lacks:
        note(PROGRAM, lack)
    with whole_file(path) as file:
        file.write(content)
    if not is_stdout(path):
        print(f"{path}: the attention map")


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
    where: str,
) -> None:
    """Print what the word attends to in the map (S, S) of the first look, and the other looks.

    `where` says which map that is.
    """
    import numpy as np

    others = looks[1:]
    pieces = f", the mean of its {len(word.tokens)} tokens" if len(word.tokens) > 1 else ""
    print(f'"{word.text}"{pieces}, {where} looks at')
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
