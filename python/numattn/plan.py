"""What a call of :func:`numattn.attention` would do, and the memory it would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from numattn import _core
from numattn._arguments import layout_name, precision_name, thread_count
from numattn._dtypes import COMPUTED, as_dtype
from numattn._names import Layout, Precision
from numattn._score import Score, ScoreOptions, require_known, spelled_out

if TYPE_CHECKING:
    from typing_extensions import Unpack


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


@spelled_out(ScoreOptions)
def plan(
    q_shape: Sequence[int],
    k_shape: Sequence[int],
    v_shape: Sequence[int] | None = None,
    *,
    dtype: Any = np.float32,
    layout: Layout = "bhsd",
    precision: Precision = "highest",
    num_threads: int | None = None,
    **score: Unpack[ScoreOptions],
) -> Plan:
    """Say how :func:`numattn.attention` would compute C-contiguous arrays of these shapes.

    Parameters
    ----------
    q_shape, k_shape, v_shape : sequences of int
        Shapes as for :func:`numattn.attention`; v's defaults to k's.
    dtype : dtype or str
        float32, float16 or bfloat16.
    layout, precision, **score
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
    require_known("plan", score, ScoreOptions)
    model = np.empty(0, as_dtype(dtype, COMPUTED))
    value_shape = k_shape if v_shape is None else v_shape
    report = _core.plan(
        list(q_shape), list(k_shape), list(value_shape), model, Score.of(**score),
        layout_name(layout), precision_name(precision), thread_count(num_threads),
    )  # fmt: skip
    return Plan(**report)
