"""A text that is being written: its prompt, what has come of it, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Finish: TypeAlias = Literal["stop", "length"]


class Choose(Protocol):
    """What chooses tokens: a `numattn.models.Sampler` of the text's own."""

    def __call__(
        self, logits: NDArray[Any], prompts: list[list[int]], texts: list[list[int]]
    ) -> NDArray[np.int64]:
        """Return a token (1,) for logits (1, V), after a prompt and what has followed it."""


class Sequence:
    """One text of a request.

    Parameters
    ----------
    prompt : iterable of int
        Token ids, one or more.
    new_tokens : int
        Upper limit of the tokens that follow, 1 or more.
    choose : callable
        Which token comes next.
    ends : set of int
        The text ends with the first of these, which is no part of it.
    watch : callable, optional
        Called with each token that belongs to the text; the text ends if it returns True.
    """

    def __init__(
        self,
        prompt: Iterable[int],
        new_tokens: int,
        choose: Choose,
        ends: frozenset[int] = frozenset(),
        watch: Callable[[int], bool] | None = None,
    ) -> None:
        self.prompt = [*prompt]
        self.text: list[int] = []
        self.tokens = [*self.prompt]
        self.prompt_tokens = len(self.prompt)
        self.limit = self.prompt_tokens + new_tokens
        self.finish: Finish | None = None
        self.read = 0
        """How many of the tokens the cache has."""
        self.reused = 0
        """How many of the prompt's tokens it had from another text."""
        self._choose, self._ends, self._watch = choose, ends, watch

    @property
    def new_tokens(self) -> int:
        """Return how many tokens have been written, one that ends the text among them."""
        return len(self.text)

    @property
    def cached_tokens(self) -> int:
        """Return how many tokens the cache may have to hold: the last one is not read."""
        return self.limit - 1

    def unread(self, most: int) -> NDArray[np.int64]:
        """Return the next tokens that are to be read, (1, n) with n of `most` at the most."""
        return np.array([self.tokens[self.read : self.read + most]], dtype=np.int64)

    def take(self, logits: NDArray[Any]) -> int:
        """Choose the next token by the logits (1, V) after all tokens, and see whether it ends."""
        token = int(self._choose(logits, [self.prompt], [self.text])[0])
        self.tokens.append(token)
        self.text.append(token)
        if token in self._ends:
            self.finish = "stop"
        elif self._watch is not None and self._watch(token):
            self.finish = "stop"
        elif len(self.tokens) >= self.limit:
            self.finish = "length"
        return token

    def take_verified(self, guess: list[int], logits: NDArray[Any]) -> tuple[list[int], int]:
        """Choose tokens for as long as each is the one that was guessed, and one more.

        A choice of chance is made as it is without guesses, by the same numbers.

        Parameters
        ----------
        guess : list of int
            What was read after the last token.
        logits : float32 array (n, V)
            After the last token, and after each guess.

        Returns
        -------
        list of int
            The new tokens. The cache holds all but the last, and the guesses that were wrong.
        int
            How many guesses were right.
        """
        tokens: list[int] = []
        accepted = 0
        for place in range(len(guess) + 1):
            tokens.append(self.take(logits[place : place + 1]))
            right = place < len(guess) and tokens[-1] == guess[place]
            accepted += right
            if not right or self.finish is not None:
                break
        self.read += len(tokens)
        return tokens, accepted
