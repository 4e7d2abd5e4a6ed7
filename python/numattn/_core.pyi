"""The compiled core; only the modules of this package call it, and they say what things mean."""

from collections.abc import Mapping
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

__version__: str
score_fields: tuple[str, ...]

def attention(
    q: Any,
    k: Any,
    v: Any,
    k_scale: Any,
    v_scale: Any,
    k_wide: Any,
    score: tuple[Any, ...],
    layout: str,
    precision: str,
    num_threads: int,
    out: Any,
    return_lse: bool,
    /,
) -> Any: ...
def attention_paged(
    q: Any,
    k_pages: Any,
    v_pages: Any,
    k_scale: Any,
    v_scale: Any,
    k_wide: Any,
    block_table: NDArray[Any],
    score: tuple[Any, ...],
    layout: str,
    precision: str,
    num_threads: int,
    out: Any,
    return_lse: bool,
    /,
) -> Any: ...
def attention_varlen(
    q: Any,
    k: Any,
    v: Any,
    query_starts: NDArray[Any],
    key_starts: NDArray[Any],
    score: tuple[Any, ...],
    block_masks: tuple[Any, ...] | None,
    precision: str,
    num_threads: int,
    out: Any,
    return_lse: bool,
    /,
) -> Any: ...
def attention_weights(
    q: Any, k: Any, rows: Any, score: tuple[Any, ...], layout: str, num_threads: int, /
) -> NDArray[Any]: ...
def activate(x: NDArray[Any], activation: str, out: NDArray[Any], num_threads: int, /) -> None: ...
def append_to_cache(
    held: tuple[Any, ...],
    tokens: tuple[Any, ...],
    block_table: NDArray[Any] | None,
    lengths: NDArray[Any],
    first: NDArray[Any] | None,
    counts: NDArray[Any] | None,
    layout: str,
    /,
) -> None: ...
def attend_in_cache(
    q: Any,
    held: tuple[Any, ...],
    tokens: tuple[Any, ...],
    wide: NDArray[Any] | None,
    block_table: NDArray[Any] | None,
    lengths: NDArray[Any],
    first: NDArray[Any] | None,
    counts: NDArray[Any] | None,
    score: tuple[Any, ...],
    layout: str,
    num_threads: int,
    out: Any,
    /,
) -> Any: ...
def cache_memory(size: int, /) -> NDArray[Any]: ...
def plan(
    q_shape: list[int],
    k_shape: list[int],
    v_shape: list[int],
    dtype_model: NDArray[Any],
    score: tuple[Any, ...],
    layout: str,
    precision: str,
    num_threads: int,
    /,
) -> dict[str, Any]: ...

class PackedLinear:
    @overload
    def __init__(
        self, weight: NDArray[Any], bias: NDArray[Any] | None, storage: str, precision: str
    ) -> None: ...
    @overload
    def __init__(
        self,
        version: int,
        format: str,
        out_features: int,
        in_features: int,
        panels: NDArray[Any],
        bias: NDArray[Any] | None,
    ) -> None: ...
    @staticmethod
    def of_panels(
        format: str,
        out_features: int,
        in_features: int,
        panels: NDArray[Any],
        bias: NDArray[Any] | None,
        /,
    ) -> PackedLinear: ...
    def __deepcopy__(self, memo: Any, /) -> PackedLinear: ...
    def part(self, begin: int, end: int, /) -> PackedLinear: ...
    @property
    def in_features(self) -> int: ...
    @property
    def out_features(self) -> int: ...
    def run(
        self,
        x: NDArray[Any],
        activation: str,
        factor: NDArray[Any] | PackedLinear | None,
        residual: NDArray[Any] | None,
        out: NDArray[Any] | None,
        num_threads: int,
        /,
    ) -> NDArray[Any]: ...
    def add_to(
        self,
        steps: Steps,
        x: NDArray[Any],
        activation: str,
        factor: NDArray[Any] | PackedLinear | None,
        residual: NDArray[Any] | None,
        out: NDArray[Any] | None,
        /,
    ) -> NDArray[Any]: ...

class Steps:
    def __init__(self, num_threads: int, /) -> None: ...
    def run(self) -> None: ...

def add_attention(
    steps: Steps,
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    score: tuple[Any, ...],
    out: NDArray[Any],
    /,
) -> None: ...
def add_attention_varlen(
    steps: Steps,
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    starts: NDArray[Any],
    score: tuple[Any, ...],
    out: NDArray[Any],
    /,
) -> None: ...
def add_layer_norm(
    steps: Steps,
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    epsilon: float,
    out: NDArray[Any] | None,
    /,
) -> NDArray[Any]: ...
def add_rms_norm(
    steps: Steps,
    x: NDArray[Any],
    weight: NDArray[Any],
    epsilon: float,
    out: NDArray[Any] | None,
    /,
) -> NDArray[Any]: ...
def add_rope(
    steps: Steps,
    x: NDArray[Any],
    cos: NDArray[Any],
    sin: NDArray[Any],
    positions: NDArray[Any] | None,
    interleaved: bool,
    layout: str,
    out: NDArray[Any],
    /,
) -> None: ...
def layer_norm(
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    epsilon: float,
    out: NDArray[Any] | None,
    num_threads: int,
    /,
) -> NDArray[Any]: ...
def rms_norm(
    x: NDArray[Any],
    weight: NDArray[Any],
    epsilon: float,
    out: NDArray[Any] | None,
    num_threads: int,
    /,
) -> NDArray[Any]: ...
def apply_rope(
    x: NDArray[Any],
    cos: NDArray[Any],
    sin: NDArray[Any],
    positions: NDArray[Any] | None,
    interleaved: bool,
    layout: str,
    out: NDArray[Any] | None,
    num_threads: int,
    /,
) -> NDArray[Any]: ...
def available_isas() -> list[str]: ...
def current_isa() -> str: ...
def use_isa(name: str, /) -> None: ...
def cpu_features() -> str: ...
def load_numpy() -> None: ...
def set_num_threads(count: int, /) -> None: ...
def get_num_threads() -> int: ...
def thread_limits() -> dict[str, int]: ...
def lies_apart(out: object, inputs: Mapping[str, object], may_be: tuple[str, ...], /) -> bool: ...
def empty(dtype: np.dtype[Any], shape: list[int], /) -> NDArray[Any]: ...
def array_of(tensor: Any, name: str, /) -> NDArray[Any] | None: ...
def array_of_capsule(capsule: Any, writable: bool, /) -> NDArray[Any] | None: ...
def tensor_of(array: NDArray[Any], model: Any, /) -> Any: ...
def capsule_of(array: NDArray[Any], /) -> Any: ...
