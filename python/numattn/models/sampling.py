"""Which token comes next: the likeliest, or one drawn at random from the likely ones.

Scores are logits, changed by what has been written (penalties.py), / temperature. Of them top_k
leaves the k likeliest, top_p the fewest that make up p, and min_p those that are not far less
likely than the likeliest; the token is drawn by softmax of those that are left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import bounded_integer

from .beams import UNLIKELY
from .penalties import NOTHING, Penalties, Tokens, real


class Sampler:
    """Draws tokens by their logits.

    Parameters
    ----------
    temperature : float
        Below 1 likely tokens are taken more often than the model says, above 1 less often. At 0 the
        likeliest is taken, the lowest number of several equal ones.
    top_k : int, optional
        Draw from the k likeliest tokens.
    top_p : float, optional
        Draw from the likeliest tokens whose probabilities add up to p; the one that reaches p is
        among them. After top_k. (Holtzman et al., "The Curious Case of Neural Text Degeneration",
        2020.)
    min_p : float, optional
        Draw from the tokens that are at least min_p times as likely as the likeliest. After top_p,
        as in transformers. (Nguyen et al., "Turning Up the Heat", 2024.)
    repetition_penalty, presence_penalty, frequency_penalty, logit_bias
        What changes the logits first; see `Penalties`. The first counts prompts too, as
        transformers does; the second and third new tokens alone, as OpenAI does.
    seed : int or sequence of int, optional
        The same seed, logits and number of calls before give a row the same tokens, whatever the
        others are. Of one number each row makes a stream of its own, which follows from its place;
        of a sequence it has the number at its place, so that a text is the same alone and beside
        others. Without it each sampler differs.

    Raises
    ------
    TypeError
        One of these is no number.
    ValueError
        A temperature below 0 or not finite, a top_k below 1, a top_p or min_p outside 0 … 1 (0
        excluded for top_p), or what `Penalties` refuses.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.array([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    >>> Sampler(temperature=0)(logits)
    array([1, 0])
    >>> sampler = Sampler(top_k=2, seed=1)
    >>> set(np.concatenate([sampler(logits[:1]) for _ in range(50)]).tolist())
    {1, 2}
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | Sequence[int] | None = None,
    ) -> None:
        self.temperature = real("temperature", temperature)
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 or more, and finite, not {temperature}")
        self.top_k = None if top_k is None else bounded_integer("top_k", top_k)
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be 1 or more, not {top_k}")
        self.top_p = None if top_p is None else real("top_p", top_p)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
        self.min_p = None if min_p is None else real("min_p", min_p)
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be 0 … 1, not {min_p}")
        self.penalties = Penalties(
            repetition_penalty, presence_penalty, frequency_penalty, logit_bias
        )
        self._streams = Streams(seed)

    def __call__(
        self,
        logits: ArrayLike,
        prompts: Sequence[Tokens] | None = None,
        texts: Sequence[Tokens] | None = None,
    ) -> NDArray[np.int64]:
        """Return a token for each row of logits (B, V).

        One random number is drawn for each row, whatever the logits are.

        Parameters
        ----------
        logits : array (B, V)
            Of the next tokens.
        prompts, texts : sequences of B sequences of int, optional
            What stands before the new tokens of each row, and these. Needed by penalties.

        Raises
        ------
        TypeError
            If logits are not real numbers.
        ValueError
            If logits are not (B, V) with V of 1 or more, or the largest of a row is not finite; if
            there are more rows than seeds; or if there are penalties, and no texts to apply them
            to.
        """
        rows = checked_logits(logits, 2)
        if self.penalties.any:
            before, after = self.penalties.checked(prompts, texts, len(rows))
            changed = [*map(self.penalties.applied, rows, before, after)]
            rows = np.stack(changed) if changed else rows
        if self.temperature == 0:
            return np.asarray(rows.argmax(axis=1), dtype=np.int64)
        drawn = [self._draw(row, self._streams.next(number)) for number, row in enumerate(rows)]
        return np.array(drawn, dtype=np.int64)

    def probabilities(
        self, logits: ArrayLike, prompt: Tokens = NOTHING, text: Tokens = NOTHING
    ) -> NDArray[np.float64]:
        """Return with what probability each token of one row of logits (V,) is drawn.

        Raises
        ------
        TypeError, ValueError
            As for a call.
        """
        row = checked_logits(logits, 1)
        if self.penalties.any:
            row = self.penalties.applied(row, prompt, text)
        result = np.zeros(row.size)
        if self.temperature == 0:
            result[row.argmax()] = 1
        else:
            tokens, weights = self._candidates(row)
            result[tokens] = weights
        return result

    def uniform(self, row: int = 0) -> float:
        """Return the next random number of a row's stream, in 0 … 1 (1 excluded)."""
        return self._streams.next(row)

    def _draw(self, row: NDArray[Any], uniform: float) -> int:
        """Return the token at which the distribution function of a row passes `uniform`."""
        tokens, weights = self._candidates(row)
        return int(tokens[drawn(weights, uniform)])

    def _candidates(self, row: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the tokens that may be drawn, and their probabilities, which add up to 1."""
        row = row.astype(np.float64, copy=False)
        tokens = np.arange(row.size)
        if self.top_k is not None and self.top_k < row.size:
            threshold = np.partition(row, row.size - self.top_k)[row.size - self.top_k]
            tokens = tokens[row >= threshold]  # and more than k, where several equal the last
        if self.top_k is not None or self.top_p is not None:
            tokens = tokens[np.argsort(-row[tokens], kind="stable")][: self.top_k]
        # What overflows here is −inf, of weight 0, as it should be.
        with np.errstate(over="ignore"):
            weights = np.exp((row[tokens] - row.max()) / self.temperature)
        weights /= weights.sum()
        if self.top_p is not None:
            count = 1 + int(np.searchsorted(np.cumsum(weights), self.top_p))
            tokens, weights = tokens[:count], weights[:count] / weights[:count].sum()
        if self.min_p is not None:
            kept = weights >= self.min_p * weights.max()
            tokens, weights = tokens[kept], weights[kept] / weights[kept].sum()
        return tokens, weights


def drawn(weights: NDArray[np.float64], uniform: float) -> int:
    """Return the place at which the sum of weights, which add up to 1, passes `uniform`."""
    # Those of weight 0 are passed by; the clip is for a rounded sum that falls short of 1.
    place = int(np.searchsorted(np.cumsum(weights), uniform, side="right"))
    return int(min(place, np.flatnonzero(weights)[-1]))


class Streams:
    """A stream of random numbers for each row; see the seed of `Sampler`."""

    def __init__(self, seed: Any) -> None:
        self._seeds: list[np.random.SeedSequence] | None = None
        several = hasattr(seed, "__len__") and getattr(seed, "ndim", 1) == 1
        if several and not isinstance(seed, (str, bytes)):
            self._seeds = [made_of(each) for each in seed]
        else:
            self._root = made_of(seed)
        self._rows: dict[int, np.random.Generator] = {}

    def next(self, row: int) -> float:
        """Return the next number of a row's stream."""
        if row not in self._rows:
            if self._seeds is None:
                root = self._root
                own = np.random.SeedSequence(root.entropy, spawn_key=(row,))
            elif row < len(self._seeds):
                own = self._seeds[row]
            else:
                raise ValueError(f"there are {len(self._seeds)} seeds, and more rows")
            self._rows[row] = np.random.default_rng(own)
        return float(self._rows[row].random())


def made_of(seed: Any) -> np.random.SeedSequence:
    """Return what a stream is made of, or raise."""
    try:
        return np.random.SeedSequence(seed.item() if getattr(seed, "ndim", None) == 0 else seed)
    except TypeError:
        raise TypeError(f"seed must be a whole number or None, not {seed!r}") from None
    except ValueError:
        raise ValueError(f"seed must be 0 or more, not {seed!r}") from None


def checked_logits(logits: ArrayLike, axes: int) -> NDArray[Any]:
    """Return logits as an array of that many axes whose rows have a likeliest token, or raise."""
    rows: NDArray[Any] = np.asarray(logits)
    shape = "(B, V)" if axes == 2 else "(V,)"
    if rows.ndim != axes or rows.shape[-1] == 0:
        raise ValueError(f"logits must be {shape} with V of 1 or more, not {rows.shape}")
    if rows.dtype.kind not in "fiu" and rows.dtype.name != "bfloat16":
        raise TypeError(f"logits must be real numbers, not {rows.dtype}")
    # Of a row with a NaN the maximum is NaN.
    if not np.isfinite(rows.max(axis=-1).astype(np.float64)).all():
        raise ValueError(UNLIKELY)
    return rows


def greedy() -> Sampler:
    """Return the sampler that takes the likeliest token."""
    return Sampler(temperature=0)
