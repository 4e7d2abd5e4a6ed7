"""What a call of :func:`numattn.attention` would do, and the memory it would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from numattn import _core
from numattn._arguments import score_arguments
from numattn._dtypes import COMPUTED, as_dtype
from numattn._names import Layout, Precision, Window
from numattn.position.relative import Relative, relative_arguments


@dataclass(frozen=True)
class Plan:
    """How one attention call is carried out.

    Attributes
    ----------
    kernel : str
        ``"attend"`` (query rows in vector lanes) or ``"decode"`` (few rows, keys streamed once).
    isa : str
        Instruction set.
    query_block : int
        Query rows per work item; rows of all query heads that share a key head count.
    key_block : int
        Keys per tile.
    split_keys : int
        Keys per split; splits are computed apart and combined exactly.
    is_split : bool
        Whether there is more than one split.
    work_items : int
        Units handed to threads.
    threads : int
        Threads that would be used here and now.
    scratch_bytes : int
        Memory the call allocates beyond its result, for C-contiguous inputs.
    flops : float
        Floating-point operations of the two products if nothing is hidden.
    """

    kernel: str
    isa: str
    query_block: int
    key_block: int
    split_keys: int
    is_split: bool
    work_items: int
    threads: int
    scratch_bytes: int
    flops: float

    def __str__(self) -> str:
        splits = f", split every {self.split_keys} keys" if self.is_split else ""
        return (
            f"{self.kernel} kernel on {self.isa}: {self.work_items} work items of up to "
            f"{self.query_block} query rows, tiles of {self.key_block} keys{splits}; "
            f"{self.threads} thread{'s' if self.threads > 1 else ''}, "
            f"{self.scratch_bytes:,} bytes of scratch, {self.flops / 1e9:.3g} GFLOP"
        )


def plan(
    q_shape: Sequence[int],
    k_shape: Sequence[int],
    v_shape: Sequence[int] | None = None,
    *,
    dtype: Any = np.float32,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    is_causal: bool = False,
    q_offset: ArrayLike = 0,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    kv_lens: ArrayLike | None = None,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    relative: Relative | None = None,
    layout: Layout = "bhsd",
    precision: Precision = "highest",
    num_threads: int | None = None,
) -> Plan:
    """Say how :func:`numattn.attention` would compute C-contiguous arrays of these shapes.

    Parameters
    ----------
    q_shape, k_shape, v_shape : sequences of int
        Shapes as for :func:`numattn.attention`; v's defaults to k's.
    dtype : dtype or str
        float32, float16 or bfloat16.
    mask, bias, is_causal, q_offset, window, scale, softcap, kv_lens, alibi_slopes, sinks
        As for :func:`numattn.attention`.
    relative, layout, precision
        As for :func:`numattn.attention`.
    num_threads : int, optional
        Upper limit for the call.

    Returns
    -------
    Plan

    Raises
    ------
    TypeError, ValueError
        Whatever the call itself would raise; ValueError for another dtype.
    ImportError
        The dtype is bfloat16 by name, and the package ml_dtypes is not installed.

    Examples
    --------
    >>> import numattn as na
    >>> p = na.plan((1, 32, 1, 128), (1, 8, 4096, 128))
    >>> p.kernel, p.query_block
    ('decode', 4)
    """
    score = score_arguments(
        mask, bias, is_causal, q_offset, window, scale, softcap, kv_lens, alibi_slopes, sinks,
        layout, num_threads, precision, relative_arguments(relative),
    )  # fmt: skip
    model = np.empty(0, as_dtype(dtype, COMPUTED))
    value_shape = k_shape if v_shape is None else v_shape
    return Plan(**_core.plan(list(q_shape), list(k_shape), list(value_shape), model, score))
