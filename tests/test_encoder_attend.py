"""Attention of an encoder's sequences to themselves, with a bias by distance."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from numattn._steps import Steps
from numattn.models.encoder.attend import attend
from numattn.models.ragged import Ragged
from numattn.position import t5_bias
from tolerance import assert_same_bits


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    "lengths", [[], [0], [7], [9, 9, 9], [12, 12, 5, 5, 5, 1, 5], [4, 0, 0, 4, 4]]
)
def test_bits_are_those_of_each_alone(
    lengths: list[int], threads: int, window: int | None, rng: np.random.Generator, isa: str
) -> None:
    sequences, longest = Ragged.of_lengths(lengths), max([0, *lengths])
    table = rng.standard_normal((32, 2)).astype(np.float32)
    bias = t5_bias(table, longest, longest, bidirectional=True, max_distance=128)
    # Beside one another in memory, as a layer has them.
    both = rng.standard_normal((sequences.count, 4, 2, 8)).astype(np.float32)
    query, key, value, out = (both[:, part] for part in range(4))
    steps = Steps(threads)
    attend(steps, query, key, value, sequences, out, window, bias)
    steps.run()
    for begin, end in pairwise(sequences.starts.tolist()):
        here, alone = slice(begin, end), np.empty((end - begin, 2, 8), np.float32)
        steps = Steps(1)
        attend(
            steps, query[here], key[here], value[here], Ragged.of_lengths([end - begin]), alone,
            window, bias,
        )  # fmt: skip
        steps.run()
        assert_same_bits(out[here], alone)
