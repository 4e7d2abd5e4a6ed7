"""Logits changed by what has been written: tokens that are there already become less likely.

    x[t] += bias[t]
    x[t]  = x[t] / r if x[t] > 0 else x[t] · r         t in the prompt or the text
    x[t] -= frequency · count(t) + presence            t in the text

r is the repetition_penalty of transformers (Keskar et al., CTRL, 2019); frequency_penalty,
presence_penalty and logit_bias are those of OpenAI's interface.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from numattn._arguments import bounded_integer

from .arrays import Int64Array

Tokens: TypeAlias = "Sequence[int] | Int64Array"
NOTHING: Tokens = ()


class Penalties:
    """How logits are changed before a token is chosen.

    Parameters
    ----------
    repetition_penalty : float
        r: above 1 tokens that are there become less likely; 1 changes nothing.
    presence_penalty, frequency_penalty : float
        What is taken from the logits of tokens of the text, once, and for each time that they are
        there; 0 changes nothing.
    logit_bias : mapping of int to float, optional
        What is added to logits of tokens; −inf forbids one.

    Attributes
    ----------
    any : bool
        Whether any of them changes something.

    Raises
    ------
    TypeError
        One is no number.
    ValueError
        A penalty is not finite, r is not above 0, or a bias is NaN or +inf, or of no token.
    """

    def __init__(
        self,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
    ) -> None:
        self.repetition = real("repetition_penalty", repetition_penalty)
        if not 0 < self.repetition < math.inf:
            raise ValueError(
                f"repetition_penalty must be above 0, and finite, not {repetition_penalty}"
            )
        self.presence = finite("presence_penalty", presence_penalty)
        self.frequency = finite("frequency_penalty", frequency_penalty)
        self.bias = {} if logit_bias is None else checked_bias(logit_bias)
        self._by_text = bool(self.repetition != 1 or self.presence or self.frequency)
        self.any = self._by_text or bool(self.bias)

    def checked(
        self, prompts: Sequence[Tokens] | None, texts: Sequence[Tokens] | None, rows: int
    ) -> tuple[Sequence[Tokens], Sequence[Tokens]]:
        """Return prompts and texts of that many rows, or raise ValueError."""
        if not self._by_text:
            return [NOTHING] * rows, [NOTHING] * rows
        if prompts is None or texts is None:
            raise ValueError("penalties need prompts and texts, and they are not given")
        if not len(prompts) == len(texts) == rows:
            raise ValueError(
                f"prompts and texts must be of {rows} rows, as logits, not {len(prompts)} and "
                f"{len(texts)}"
            )
        return prompts, texts

    def applied(self, row: NDArray[Any], prompt: Tokens, text: Tokens) -> NDArray[np.float64]:
        """Return one row of logits (V,), changed, as float64 of its own.

        Raises
        ------
        ValueError
            If there is no such token as a bias is for, or no token that is left.
        """
        changed = row.astype(np.float64)
        for token, bias in self.bias.items():
            if token >= changed.size:
                raise ValueError(f"logit_bias is of token {token}, and there are {changed.size}")
            changed[token] += bias
        new = np.asarray(text, dtype=np.int64)
        if self.repetition != 1:
            seen = np.unique(np.concatenate([np.asarray(prompt, dtype=np.int64), new]))
            scores = changed[seen]
            changed[seen] = np.where(scores > 0, scores / self.repetition, scores * self.repetition)
        if self.presence or self.frequency:
            tokens, counts = np.unique(new, return_counts=True)
            changed[tokens] -= self.frequency * counts + self.presence
        if not np.isfinite(changed.max()):
            raise ValueError("logit_bias forbids all tokens, or penalties overflow")
        return changed


def checked_bias(given: Mapping[int, float]) -> dict[int, float]:
    """Return biases by token, or raise."""
    if not isinstance(given, Mapping):
        raise TypeError(f"logit_bias must map tokens to numbers, not be a {type(given).__name__}")
    result = {}
    for key, value in given.items():
        token, bias = bounded_integer("a token of logit_bias", key), real("logit_bias", value)
        if token < 0:
            raise ValueError(f"a token of logit_bias must be 0 or more, not {token}")
        if math.isnan(bias) or bias == math.inf:
            raise ValueError(f"logit_bias must be finite or -inf, not {bias}")
        result[token] = bias
    return result


def finite(name: str, value: Any) -> float:
    """Return a number as a float, or raise."""
    number = real(name, value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, not {value}")
    return number


def real(name: str, value: Any) -> float:
    """Return a number as a float, or raise TypeError or, if none holds it, ValueError."""
    try:
        if isinstance(value, (str, bytes, bool)):
            raise TypeError
        return float(value)
    except TypeError:
        raise TypeError(f"{name} must be a real number, not {value!r}") from None
    except OverflowError:
        raise ValueError(f"{name} must be finite, not {value}") from None
