"""The mask function that transformers' models call, once for all layers of a kind.

transformers says what is seen by functions of (batch, head, query, key), put together by and_masks.
Those that it makes itself are known here by their names and told as rules: an order, a window, an
interval of keys for each query. Whatever else they are put together of makes a mask of bools, which
transformers computes for its "sdpa".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from numattn.compat.torch.operators import Tensor
from numattn.compat.transformers.rule_mask import rule_mask

Spans = tuple[Any, Any]
"""Begin and end of what each query sees, arrays that broadcast to (B, 1, Sq)."""


class Unknown(Exception):
    """A function that is none of transformers' own, or one that is no interval of keys."""


def attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: Any = 0,
    mask_function: Callable[..., Any] | None = None,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    device: Any = "cpu",
    **others: Any,
) -> Tensor:
    """Make a mask of shape (B, 1, q_length, kv_length), as rules where it can be told so.

    Parameters
    ----------
    batch_size, q_length, kv_length : int
    q_offset, kv_offset : int, or tensor of one
        Positions of the first query and the first key.
    mask_function : callable
        Of (batch, head, position of the query, position of the key).
    attention_mask : bool tensor of shape (B, positions), optional
        False = padding.
    allow_is_causal_skip, allow_is_bidirectional_skip : bool
        Not read. Without a mask, transformers' layers go by what they say of themselves, or not.
    use_vmap : bool
        The function is one of the caller's own.
    device : device
        Where tensors are.

    Returns
    -------
    tensor
    """
    import torch
    from transformers import masking_utils

    function = mask_function or masking_utils.causal_mask_function

    def dense() -> Tensor:
        return masking_utils.sdpa_mask(
            batch_size=batch_size, q_length=q_length, kv_length=kv_length, q_offset=q_offset,
            kv_offset=kv_offset, mask_function=function, attention_mask=attention_mask,
            allow_is_causal_skip=False, allow_is_bidirectional_skip=False, use_vmap=use_vmap,
            device=device, **others,
        )  # fmt: skip

    if torch.compiler.is_compiling() or torch.device(device).type != "cpu":
        return dense()
    view = _View(batch_size, q_length, kv_length, int(q_offset), int(kv_offset))
    try:
        if use_vmap:
            raise Unknown
        view.read(function)
        rules = view.rules(attention_mask)
    except Unknown:
        bools = dense()
        return rule_mask(tuple(bools.shape), None, lambda: bools)
    return rule_mask((batch_size, 1, q_length, kv_length), rules, dense)


class _View:
    """What queries see, as it is read from functions: positions are those of the text."""

    def __init__(self, batch: int, queries: int, keys: int, q_first: int, k_first: int) -> None:
        self.batch, self.queries, self.keys = batch, queries, keys
        self.q_first, self.k_first = q_first, k_first
        self.causal = False
        self.left = self.right = -1
        self.spans: list[Spans] = []

    def read(self, function: Callable[..., Any]) -> None:
        """Narrow what is seen by a function of transformers'; `Unknown` if it is none."""
        if getattr(function, "__module__", "") != "transformers.masking_utils":
            raise Unknown
        name = function.__qualname__.partition(".")[0]
        held = _held(function)
        if name == "and_masks":
            for part in held["mask_functions"]:
                self.read(part)
        elif name == "causal_mask_function":
            self.causal = True
        elif name == "sliding_window_overlay":
            self._narrow_left(held["sliding_window"] - 1)
        elif name == "sliding_window_bidirectional_overlay":
            self._narrow_left(held["sliding_window"])
            self.right = held["sliding_window"]
        elif name == "chunked_overlay":
            self.spans.append(self._chunks(held["chunk_size"], held["left_padding"]))
        elif name == "packed_sequence_mask_function":
            self.spans.append(self._sequences(held["packed_sequence_mask"]))
        elif name == "remap_positions_for_packed_sequence":
            # Positions within a sequence: order and distances are those in the row, and what
            # crosses sequences is hidden by the function before.
            self.read(held["mask_function"])
            if len(self.spans) > 0:
                raise Unknown  # chunks count from the beginning of each sequence
        elif name != "bidirectional_mask_function":
            raise Unknown

    def rules(self, padding: Tensor | None) -> dict[str, Any]:
        """The arguments of attention, those that change nothing left out."""
        rules: dict[str, Any] = {}
        offset = self.q_first - self.k_first
        if self.causal and offset < self.keys - 1:  # or else the first query sees all
            rules["is_causal"] = True
        if 0 <= self.left < offset + self.queries - 1:
            rules["left"] = self.left
        if 0 <= self.right < self.keys - 1 - offset:
            rules["right"] = self.right
        if rules:
            rules["q_offset"] = offset
        rules |= self._padding(padding)
        if self.spans:
            begin, end = zip(*self.spans, strict=True)
            both = np.broadcast_arrays(*begin, *end)
            ends = [np.maximum.reduce(both[: len(begin)]), np.minimum.reduce(both[len(begin) :])]
            rules["key_spans"] = np.clip(np.stack(ends), 0, self.keys)
        return rules

    def _padding(self, padding: Tensor | None) -> dict[str, Any]:
        """Padding at the end as lengths, at the beginning as spans, among tokens as a mask."""
        if padding is None:
            return {}
        real = padding.numpy()[:, self.k_first : self.k_first + self.keys].astype(bool)
        count = real.sum(axis=1)
        if count.min(initial=self.keys) == self.keys:  # min over rows, all keys there
            return {}
        width = real.shape[1]  # what lies beyond is padding
        begin = np.where(count > 0, real.argmax(axis=1), 0)
        end = np.where(count > 0, width - real[:, ::-1].argmax(axis=1), 0)
        if not np.array_equal(end - begin, count):
            full = np.zeros((len(real), 1, 1, self.keys), bool)
            full[:, 0, 0, :width] = real
            return {"mask": full}
        if begin.any():
            self.spans.append((begin[:, np.newaxis, np.newaxis], end[:, np.newaxis, np.newaxis]))
            return {}
        return {"kv_lens": end}

    def _narrow_left(self, left: int) -> None:
        self.left = left if self.left < 0 else min(left, self.left)

    def _chunks(self, size: int, left_padding: Tensor) -> Spans:
        """The chunk of each query, counted from the first token of its row."""
        first = left_padding.numpy()[:, np.newaxis, np.newaxis]
        positions = self.q_first + np.arange(self.queries) - first
        begin = positions // size * size + first - self.k_first
        return begin, begin + size

    def _sequences(self, numbers: Tensor) -> Spans:
        """The sequence of each query: where its number, which never falls, begins and ends."""
        rows = numbers.numpy()
        begin = np.stack([np.searchsorted(row, row, "left") for row in rows])
        end = np.stack([np.searchsorted(row, row, "right") for row in rows])
        return begin[:, np.newaxis], end[:, np.newaxis]


def _held(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function holds of the one that made it."""
    names = function.__code__.co_freevars
    cells = getattr(function, "__closure__", None) or ()
    return {name: cell.cell_contents for name, cell in zip(names, cells, strict=True)}
