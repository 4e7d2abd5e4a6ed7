"""The words that a translation may consist of: a Marian lexical shortlist.

For each source word the file lists target words that have translated it. A sentence is translated
with the words listed for its own, and with the commonest ones, which have the lowest numbers.

    magic, checksum, first, best, offsets, words      6 × uint64
    offset[0 … offsets − 1]                           uint64: where in the words a list begins
    word[0 … words − 1]                               uint32

The list of source word w is word[offset[w] : offset[w + 1]].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..files.folder import regular_file

MAGIC = 0xF11A48D5013417F5
# The number of words is rounded up to a multiple of this, with the next ones in order of number.
GRANULE = 8


class Shortlist:
    """The lists of a file.

    Parameters
    ----------
    path : Path
        The file.
    vocab_size : int
        V: source and target words are 0 … V − 1, from one vocabulary.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or made for another vocabulary.
    """

    def __init__(self, path: Path, vocab_size: int) -> None:
        data = regular_file(path).read_bytes()
        if len(data) < 48:
            raise ValueError(f"{path} is no shortlist: it has {len(data)} bytes")
        header = np.frombuffer(data, "<u8", 6).tolist()
        magic, _, self._first, _, offsets, words = header
        if magic != MAGIC:
            raise ValueError(f"{path} is no shortlist: it begins with {magic:#x}")
        if offsets != vocab_size + 1:
            raise ValueError(
                f"{path} is for {offsets - 1} source words, and the vocabulary has {vocab_size}"
            )
        if len(data) != 48 + 8 * offsets + 4 * words:
            raise ValueError(f"{path} is cut short, or longer than it says")
        self._offsets = np.frombuffer(data, "<u8", offsets, 48).astype(np.int64)
        self._words = np.frombuffer(data, "<u4", words, 48 + 8 * offsets).astype(np.int64)
        self._vocab_size = vocab_size
        falls = (np.diff(self._offsets) < 0).any() or self._offsets[-1] > words
        if self._offsets[0] < 0 or falls or self._words.max(initial=0) >= vocab_size:
            raise ValueError(f"{path} is damaged: its lists do not lie in it")

    def words_for(self, source: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the words that may translate those, in order of number."""
        allowed = np.zeros(self._vocab_size, dtype=bool)
        allowed[: self._first] = True
        allowed[source] = True  # a name, say, that stays as it is
        for word in np.unique(source).tolist():
            allowed[self._words[self._offsets[word] : self._offsets[word + 1]]] = True
        missing = -int(allowed.sum()) % GRANULE
        allowed[np.flatnonzero(~allowed)[:missing]] = True
        return np.flatnonzero(allowed)
