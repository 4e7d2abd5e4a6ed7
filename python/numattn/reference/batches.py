"""Several batch axes, or one that broadcasts: each entry by a call of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])

# How many axes each argument has beside those of the batch.
OTHER_AXES = {
    "q": 3, "k": 3, "v": 3, "k_scale": 2, "v_scale": 2, "mask": 3, "bias": 3, "kv_lens": 0,
    "q_offset": 0, "alibi_slopes": 1, "scale": 1,
}  # fmt: skip


def entry_by_entry(function: Function) -> Function:
    """Let a function of heads (B, H, S, D) take those of (..., H, S, D), whose axes broadcast."""

    @wraps(function)
    def broadcast(*heads: Any, out: NDArray[Any] | None = None, **options: Any) -> Any:
        given = dict(zip("qkv", heads, strict=False))
        given |= {name: options.pop(name) for name in "qkv" if name in options}
        arrays = [np.asarray(x) for x in given.values()]
        leading = [x.shape[:-3] for x in arrays]
        if arrays[0].ndim <= 4 and (len(set(leading)) == 1 or min(x.ndim for x in arrays) < 4):
            written = {} if out is None else {"out": out}
            return function(**given, **options, **written)
        axes = np.broadcast_shapes(*leading)
        parts = [
            function(**{n: entry(n, x, axes, index) for n, x in (given | options).items()})
            for index in np.ndindex(*axes)
        ]
        if isinstance(parts[0], tuple):
            o, lse = (
                np.stack(each).reshape(*axes, *each[0].shape) for each in zip(*parts, strict=True)
            )
        else:
            o, lse = np.stack(parts).reshape(*axes, *parts[0].shape), None
        if out is not None:
            np.copyto(out, o, casting="unsafe")
            o = out
        return o if lse is None else (o, lse)

    return broadcast  # type: ignore[return-value]


def entry(name: str, value: Any, axes: tuple[int, ...], index: tuple[int, ...]) -> Any:
    """Return what an argument is for one batch entry."""
    if name == "key_spans" and value is not None:
        return tuple(of_entry(side, 2, axes, index) for side in value)
    if name not in OTHER_AXES or value is None:
        return value
    picked = of_entry(value, OTHER_AXES[name], axes, index)
    return np.atleast_1d(picked) if name == "kv_lens" else picked


def of_entry(
    value: Any, others: int, axes: tuple[int, ...], index: tuple[int, ...]
) -> NDArray[Any]:
    array = np.asarray(value)
    if array.ndim <= others:
        return array
    tail = array.shape[array.ndim - others :]
    return np.asarray(np.broadcast_to(array, axes + tail)[index])
