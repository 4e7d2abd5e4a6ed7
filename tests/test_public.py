"""What holds of every public function, found by reading signatures: nothing is listed by hand.

A function that is new, or an argument that an old one gains, fails here until a call of it is
written down below; and then the rules are tried on it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import numattn as na
import numattn.approx
import numattn.cache
import numattn.compat.onnx
import numattn.position
import numattn.spans
from cases import normal
from tolerance import assert_same_bits

Call = tuple[Callable[..., Any], dict[str, Any]]

MODULES: tuple[ModuleType, ...] = (
    na,
    numattn.approx,
    numattn.cache,
    numattn.position,
    numattn.spans,
    numattn.compat.onnx,
)


def public_functions() -> dict[str, Callable[..., Any]]:
    """Return all public functions and methods of the modules by their qualified names."""
    found: dict[str, Callable[..., Any]] = {}
    for module in MODULES:
        prefix = module.__name__.removeprefix("numattn").removeprefix(".")
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing):
                for method, function in inspect.getmembers(thing, inspect.isfunction):
                    if method == "__call__" or not method.startswith("_"):
                        found[f"{prefix}.{name}.{method}".lstrip(".")] = function
            elif inspect.isfunction(thing):
                found[f"{prefix}.{name}".lstrip(".")] = thing
    return found


def with_out() -> dict[str, Callable[..., Any]]:
    """Return those that write their result where the caller wants it."""
    return {
        name: function
        for name, function in public_functions().items()
        if "out" in inspect.signature(function).parameters
    }


def array_arguments(function: Callable[..., Any]) -> set[str]:
    """Return the names of a function's arguments that may be arrays, or hold some, without out."""
    return {
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if any(word in str(parameter.annotation) for word in ("Array", "Relative"))
        and name != "out"
    }


# --- calls of each --------------------------------------------------------------------------------

HEADS, LENGTH, WIDTH = 2, 6, 8


def relative_terms(rng: np.random.Generator) -> na.position.Relative:
    tables = normal(rng, (3, HEADS, 3, WIDTH))
    biases = normal(rng, (2, HEADS, WIDTH))
    return na.position.Relative(*tables, *biases, distance_rows=[0, 1, 2], first_distance=-1)


def per_head(rng: np.random.Generator) -> dict[str, Any]:
    return {"alibi_slopes": abs(normal(rng, (HEADS,))), "sinks": normal(rng, (HEADS,))}


def dense(rng: np.random.Generator) -> dict[str, Any]:
    mask = rng.random((1, HEADS, LENGTH, LENGTH)) < 0.7
    bias = normal(rng, (1, HEADS, LENGTH, LENGTH))
    offset = {"q_offset": np.array([1]), "is_causal": True}
    return {"mask": mask, "bias": bias} | offset | spans()


def spans() -> dict[str, Any]:
    return {"key_spans": ([0] * LENGTH, [1, 2, 2, 2, 2, 3])}  # of which a call makes its own array


def attention_calls(rng: np.random.Generator) -> Iterator[Call]:
    q, k, v = normal(rng, (3, 1, HEADS, LENGTH, WIDTH))
    operands = {"q": q, "k": k, "v": v, "kv_lens": np.array([5])}
    yield na.attention, operands | dense(rng) | per_head(rng) | {"relative": relative_terms(rng)}
    yield na.attention, operands | dense(rng) | {"scale": abs(normal(rng, (HEADS,)))}
    several = {"q": q[np.newaxis], "k": k[np.newaxis], "v": v[np.newaxis]}
    yield na.attention, operands | several | dense(rng) | per_head(rng)
    wide = np.array([[1, 7], [3, -1]])
    (k, k_scale), (v, v_scale) = na.quantize(k, wide=wide[:, None]), na.quantize(v)
    scales = {"k_scale": k_scale, "v_scale": v_scale, "k_wide": wide}
    yield na.attention, {"q": q, "k": k, "v": v} | scales


def varlen_calls(rng: np.random.Generator) -> Iterator[Call]:
    q, k, v = normal(rng, (3, LENGTH, HEADS, WIDTH))
    operands = {"q": q, "k": k, "v": v, "q_offset": np.array([1, 0]), "is_causal": True}
    starts = {"cu_seqlens_q": np.array([0, 2, 6]), "cu_seqlens_k": np.array([0, 3, 6])}
    yield na.attention_varlen, operands | starts | per_head(rng) | spans()


def paged_calls(rng: np.random.Generator) -> Iterator[Call]:
    q = normal(rng, (1, HEADS, LENGTH, WIDTH))
    k, v = normal(rng, (2, 4, 3, HEADS, WIDTH))  # pages of three tokens
    table = {"q": q, "block_table": np.array([[2, 0]]), "kv_lens": np.array([5])}
    pages = {"k_pages": k, "v_pages": v}
    score = dense(rng) | per_head(rng) | {"relative": relative_terms(rng)}
    yield na.attention_paged, table | pages | score
    wide = np.array([[1, 7], [3, -1]])
    (k, k_scale), (v, v_scale) = na.quantize(k, wide=wide), na.quantize(v)
    pages = {"k_pages": k, "v_pages": v, "k_scale": k_scale, "v_scale": v_scale, "k_wide": wide}
    yield na.attention_paged, table | pages


def attend_calls(make_cache: Callable[[], Any], attend: str) -> Callable[..., Iterator[Call]]:
    def calls(rng: np.random.Generator) -> Iterator[Call]:
        q, k, v = normal(rng, (3, 1, HEADS, LENGTH, WIDTH))
        operands = {"q": q, "k": k, "v": v, "counts": np.array([5])}
        score = per_head(rng) | {"relative": relative_terms(rng)}
        if attend == "layer":
            yield make_cache().layer(0).attend, operands | score
        else:
            yield make_cache().attend, {"layer": 0} | operands | score

    return calls


def contiguous_cache() -> Any:
    return na.KVCache(1, 1, HEADS, WIDTH)


def paged_cache() -> Any:
    return na.PagedKVCache(1, 1, HEADS, WIDTH, pages=4, page_size=4)


def linear_calls(rng: np.random.Generator) -> Iterator[Call]:
    linear = na.Linear(normal(rng, (WIDTH, WIDTH)))
    names = ("x", "factor", "residual")
    yield linear, {name: normal(rng, (LENGTH, WIDTH)) for name in names}


def norm_calls(rng: np.random.Generator) -> Iterator[Call]:
    x, (weight, bias) = normal(rng, (LENGTH, WIDTH)), normal(rng, (2, WIDTH))
    yield na.layer_norm, {"x": x, "weight": weight, "bias": bias}


def rms_norm_calls(rng: np.random.Generator) -> Iterator[Call]:
    yield na.rms_norm, {"x": normal(rng, (LENGTH, WIDTH)), "weight": normal(rng, (WIDTH,))}


def activation_calls(function: Callable[..., Any]) -> Callable[..., Iterator[Call]]:
    def calls(rng: np.random.Generator) -> Iterator[Call]:
        yield function, {"x": normal(rng, (LENGTH, WIDTH))}

    return calls


def rope_calls(rng: np.random.Generator) -> Iterator[Call]:
    cos, sin = na.position.Rope(WIDTH).tables(np.arange(LENGTH))
    x, rows = normal(rng, (1, HEADS, LENGTH, WIDTH)), np.arange(LENGTH)[::-1].copy()
    yield na.apply_rope, {"x": x, "cos": cos, "sin": sin, "positions": rows}


CALLS: dict[str, Callable[[np.random.Generator], Iterator[Call]]] = {
    "attention": attention_calls,
    "attention_varlen": varlen_calls,
    "attention_paged": paged_calls,
    "KVCache.attend": attend_calls(contiguous_cache, "cache"),
    "PagedKVCache.attend": attend_calls(paged_cache, "cache"),
    "cache.Cache.attend": attend_calls(paged_cache, "cache"),
    "cache.KVCache.attend": attend_calls(contiguous_cache, "cache"),
    "cache.CacheLayer.attend": attend_calls(contiguous_cache, "layer"),
    "cache.PagedKVCache.attend": attend_calls(paged_cache, "cache"),
    "Linear.__call__": linear_calls,
    "layer_norm": norm_calls,
    "rms_norm": rms_norm_calls,
    "apply_rope": rope_calls,
    "gelu": activation_calls(na.gelu),
    "silu": activation_calls(na.silu),
}

# Arguments that may be `out` itself, as their function's docstring says.
MAY_BE_OUT = {
    ("Linear.__call__", "factor"),
    ("Linear.__call__", "residual"),
    ("layer_norm", "x"),
    ("rms_norm", "x"),
    ("apply_rope", "x"),
    ("gelu", "x"),
    ("silu", "x"),
}


def test_every_function_with_an_out_is_called() -> None:
    assert set(CALLS) == set(with_out())


@pytest.mark.parametrize("name", CALLS)
def test_every_array_argument_is_given(name: str, rng: np.random.Generator) -> None:
    given = {argument for _, arguments in CALLS[name](rng) for argument in arguments}
    assert array_arguments(with_out()[name]) <= given


# --- out's memory is its own ----------------------------------------------------------------------


def in_memory(memory: np.ndarray, like: np.ndarray, first: int) -> np.ndarray:
    """Return an array of that shape and dtype, its bytes being memory[first:...]."""
    flat = memory[first : first + like.nbytes].view(like.dtype)
    return flat.reshape(like.shape)


def replacements(arguments: dict[str, Any]) -> Iterator[tuple[str, np.ndarray, Callable[..., Any]]]:
    """Return (name, array, the arguments with another array in its place) for each array."""
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            yield name, value, partial(with_array, arguments, name)
        elif isinstance(value, na.position.Relative):
            for field in dataclasses.fields(value):
                table = getattr(value, field.name)
                if isinstance(table, np.ndarray) and table.dtype == np.float32:
                    yield field.name, table, partial(with_table, arguments, name, field.name)


def with_array(arguments: dict[str, Any], name: str, array: np.ndarray) -> dict[str, Any]:
    return arguments | {name: array}


def with_table(arguments: dict[str, Any], name: str, field: str, array: Any) -> dict[str, Any]:
    return arguments | {name: dataclasses.replace(arguments[name], **{field: array})}


@pytest.mark.parametrize("first", [0, 32], ids=["at the same place", "further on"])
@pytest.mark.parametrize("name", CALLS)
def test_out_overlaps_no_input(name: str, first: int) -> None:
    """Each array in turn lies in out's memory: refused, and nothing is written.

    Where the argument may be `out` itself, it is so at the same place, with the right result.
    """

    def calls() -> list[Call]:
        return list(CALLS[name](np.random.default_rng(0)))  # with a new cache each time

    for index, (function, arguments) in enumerate(calls()):
        expected = function(**arguments)
        for argument, array, replaced in replacements(arguments):
            memory = np.full(first + max(expected.nbytes, array.nbytes), 7, np.uint8)
            out = in_memory(memory, expected, 0)
            inside = in_memory(memory, array, first)
            inside[...] = array
            before = memory.copy()
            call = calls()[index][0]
            if (name, argument) in MAY_BE_OUT and first == 0:
                assert call(**replaced(inside), out=out) is out
                assert_same_bits(out, expected)
                continue
            with pytest.raises(ValueError, match=f"out overlaps {argument}"):
                call(**replaced(inside), out=out)
            assert_same_bits(memory, before)
            # Nothing else is wrong with the call: with memory of its own it is right.
            own = np.empty_like(expected)
            assert call(**replaced(array.copy()), out=own) is own
            assert_same_bits(own, expected)


@pytest.mark.parametrize("name", CALLS)
def test_out_is_an_array(name: str, rng: np.random.Generator) -> None:
    for function, arguments in CALLS[name](rng):
        with pytest.raises(TypeError, match="out must be a NumPy array or a tensor, not list"):
            function(**arguments, out=[[0.0]])


# --- masked arrays --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_a_masked_array_is_refused(name: str) -> None:
    """What its mask means is not said: np.asarray would drop it without a word."""
    for index, (_, arguments) in enumerate(CALLS[name](np.random.default_rng(0))):
        for argument, array, replaced in replacements(arguments):
            function = list(CALLS[name](np.random.default_rng(0)))[index][0]
            with pytest.raises(TypeError, match=f"{argument} is a masked array"):
                function(**replaced(np.ma.masked_array(array, array == array.flat[0])))


ONE = np.eye(4, dtype=np.float32)
MASKED = np.ma.masked_array(ONE, ONE == 0)
MASKED_INTEGERS = np.ma.masked_array([0, 1], [False, True])
WITHOUT_OUT: dict[str, Callable[[], Any]] = {
    "rows": lambda: na.attention_weights(ONE[None], ONE[None], rows=MASKED_INTEGERS),
    "q": lambda: na.attention_weights(MASKED[None], ONE[None]),
    "sinks": lambda: na.plan((4, 4, 4), (4, 4, 4), sinks=MASKED[0]),
    "key_spans": lambda: na.attention(
        ONE[None], ONE[None], ONE[None], key_spans=(MASKED_INTEGERS[:1], [1])
    ),
    "mask": lambda: na.attention(
        ONE[None],
        ONE[None],
        ONE[None],
        mask=[MASKED.astype(bool)],  # within a list
    ),
    "x": lambda: na.quantize(MASKED),
    "outs": lambda: na.merge_states([ONE, MASKED], [ONE[0], ONE[0]]),
    "lses": lambda: na.merge_states([ONE], [MASKED[0]]),
    "weight": lambda: na.Linear(MASKED),
    "bias": lambda: na.Linear(ONE, MASKED[0]),
    "wk": lambda: na.MultiHeadAttention(2, ONE, MASKED, ONE, ONE),
    "bo": lambda: na.MultiHeadAttention(2, ONE, ONE, ONE, ONE, bo=MASKED[0]),
    "context": lambda: na.MultiHeadAttention(2, ONE, ONE, ONE, ONE)(ONE, MASKED),
    "v": lambda: na.KVCache(1, 1, 1, 4).append(0, ONE[None, None], MASKED[None, None]),
    "lengths": lambda: na.KVCache(1, 2, 1, 4).truncate(MASKED_INTEGERS),
    "indices": lambda: na.KVCache(1, 2, 1, 4).fork(MASKED_INTEGERS),
    "table": lambda: na.position.learned(MASKED, [0]),
    "positions": lambda: na.position.learned(ONE, MASKED_INTEGERS),
    "value_table": lambda: na.position.Relative(value_table=MASKED, distance_rows=[0]),
    "distance_rows": lambda: na.position.Relative(value_table=ONE, distance_rows=MASKED_INTEGERS),
}


@pytest.mark.parametrize("argument", WITHOUT_OUT)
def test_a_masked_array_is_refused_elsewhere(argument: str) -> None:
    with pytest.raises(TypeError, match=f"^{argument} is a masked array"):
        WITHOUT_OUT[argument]()
