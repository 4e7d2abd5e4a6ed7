"""Batch axes of heads (..., H, S, D), which broadcast, as the one axis that the core knows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from numattn._arguments import as_array
from numattn._names import Array

# How many axes of each argument are no batch axes.
DENSE = {"mask": 3, "bias": 3, "alibi_slopes": 1, "kv_lens": 0, "q_offset": 0}
SPAN_AXES = 2


class Batches:
    """The batch axes of a call, where they are not one axis that all its arrays have."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    @classmethod
    def of(cls, q: Array, k: Array, v: Array) -> Batches | None:
        """Those of arrays of as many axes, four or more; None where the core is to refuse them.

        Raises
        ------
        ValueError
            If an axis is neither alike in q, k and v nor 1.
        """
        try:
            axes = np.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3])
        except ValueError:
            if q.ndim == 4:
                return None
            raise ValueError(
                f"batch axes of q {q.shape}, k {k.shape} and v {v.shape} must be alike, or 1"
            ) from None
        return cls(axes)

    def flat(self, x: Array, others: int) -> Array:
        """An array's batch axes as one: a view where its strides allow.

        One that has no axes beside the ``others`` stays as it is, and what is dense over queries
        and keys stays one for all entries if it is.
        """
        tail = x.shape[x.ndim - others :]
        if x.ndim <= others:
            return x
        if others == 3 and math.prod(x.shape[:-3]) == 1:
            return x.reshape(1, *tail)
        try:
            whole = np.broadcast_to(x, self.axes + tail)
        except ValueError:
            raise ValueError(
                f"an array of shape {x.shape} does not fit the batch axes {self.axes}"
            ) from None
        return whole if len(self.axes) == 1 else whole.reshape(math.prod(self.axes), *tail)

    def heads(self, x: Array) -> Array:
        """q, k or v as four axes, with all batch entries."""
        whole = np.broadcast_to(x, self.axes + x.shape[-3:])
        return whole if len(self.axes) == 1 else whole.reshape(math.prod(self.axes), *x.shape[-3:])

    def score(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The score's arguments for one batch axis."""
        flat = dict(given)
        for name, others in DENSE.items():
            if name in given and given[name] is not None:
                flat[name] = self.flat(as_array(name, given[name]), others)
        spans = given.get("key_spans")
        if isinstance(spans, (tuple, list)):
            flat["key_spans"] = tuple(
                self.flat(as_array("key_spans", end), SPAN_AXES) for end in spans
            )
        return flat

    def output(self, out: Array, q: Array, v: Array, layout: object) -> Array:
        """Where the result goes as four axes, without a copy."""
        shape = (*self.axes, *q.shape[-3:-1], v.shape[-1])
        if out.shape != shape:
            raise ValueError(f"out must have shape {shape}, not {out.shape}")
        flat = out.reshape(math.prod(self.axes), *shape[-3:])
        if out.size and not np.may_share_memory(flat, out):
            raise ValueError(
                f"out of shape {out.shape} and strides {out.strides} must have batch axes that are "
                "contiguous with one another"
            )
        return flat

    def restored(self, result: Array) -> Array:
        """A result (entries, ...) with its batch axes again."""
        return result.reshape(*self.axes, *result.shape[1:])
