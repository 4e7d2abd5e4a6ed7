"""Rule 1: a row that may attend nothing has output 0 and lse −inf, or lse = sink. No warning."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, unit_inputs
from tolerance import assert_same_bits, expect

HEADS, LENGTHS = (2, 4, 2), (37, 70)


def excluded_rows(how: str) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Return score arguments and which of the rows (B, Hq, Sq) may attend nothing by them."""
    empty = np.zeros((2, 4, 37), bool)
    options: dict[str, Any]
    if how == "kv_lens":
        options = {"kv_lens": np.array([0, 5])}
        empty[0] = True
    elif how == "mask":
        mask = np.random.default_rng(1).random((2, 1, 37, 70)) < 0.6
        mask[:, :, 3::5] = False
        options = {"mask": mask}
        empty[:, :, 3::5] = True
    elif how == "mask_of_one_head":
        options = {"mask": np.array([True, False, True, True]).reshape(1, 4, 1, 1)}
        empty[:, 1] = True
    elif how == "bias":
        bias = np.zeros((1, 1, 37, 1), np.float32)
        bias[:, :, 7:20] = -np.inf
        options = {"bias": bias}
        empty[:, :, 7:20] = True
    elif how == "causal_offset":
        options = {"is_causal": True, "q_offset": np.array([-5, 0])}
        empty[0, :, :5] = True
    elif how == "window_behind_the_keys":
        options = {"window": (2, 1), "q_offset": 60}
        empty[:, :, 12:] = True
    elif how == "window_before_the_keys":
        options = {"window": (2, 1), "q_offset": -10}
        empty[:, :, :9] = True
    elif how == "window_and_kv_lens":
        options = {"window": (0, 0), "kv_lens": np.array([10, 37])}
        empty[0, :, 10:] = True
    else:
        assert how == "everything"
        options = {"kv_lens": np.array([0, 0])}
        empty[:] = True
    return options, empty


WAYS = (
    "kv_lens",
    "mask",
    "mask_of_one_head",
    "bias",
    "causal_offset",
    "window_behind_the_keys",
    "window_before_the_keys",
    "window_and_kv_lens",
    "everything",
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_sinks", [False, True])
@pytest.mark.parametrize("how", WAYS)
def test_empty_rows(
    isa: str, rng: np.random.Generator, how: str, with_sinks: bool, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, HEADS, LENGTHS, (16, 20), dtype)
    options, empty = excluded_rows(how)
    sinks = np.array([0.5, -2.0, 0.0, 3.0], np.float32)
    if with_sinks:
        options["sinks"] = sinks
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        o, lse = na.attention(q, k, v, return_lse=True, **options)
    assert (o[empty] == 0).all()
    nothing = np.broadcast_to(sinks[:, np.newaxis] if with_sinks else -np.inf, empty.shape)
    np.testing.assert_array_equal(lse[empty], nothing[empty].astype(np.float32))
    assert np.isfinite(lse[~empty]).all()
    expect(q, k, v, **options).check(o, lse)


@pytest.mark.parametrize("how", WAYS)
def test_weights_of_empty_rows_are_zero(isa: str, rng: np.random.Generator, how: str) -> None:
    q, k, _ = unit_inputs(rng, HEADS, LENGTHS)
    options, empty = excluded_rows(how)
    weights = na.attention_weights(q, k, **options)
    assert (weights[empty] == 0).all()
    np.testing.assert_allclose(weights[~empty].sum(axis=1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("query_len", [1, 3])
def test_empty_decode_rows(isa: str, rng: np.random.Generator, query_len: int) -> None:
    q, k, v = unit_inputs(rng, (2, 8, 2), (query_len, 3000), (64, 64))
    options = {"kv_lens": np.array([0, 2500])}
    o, lse = na.attention(q, k, v, return_lse=True, **options)
    assert (o[0] == 0).all() and (lse[0] == -np.inf).all()
    expect(q, k, v, **options).check(o, lse)


def test_empty_rows_overwrite_out(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, HEADS, LENGTHS)
    out = np.full(q.shape, np.nan, np.float32)
    na.attention(q, k, v, kv_lens=np.array([0, 0]), out=out)
    assert_same_bits(out, np.zeros_like(out))


@pytest.mark.parametrize("with_sinks", [False, True])
def test_no_keys_at_all(isa: str, rng: np.random.Generator, with_sinks: bool) -> None:
    q, k, v = unit_inputs(rng, HEADS, (5, 0))
    sinks = np.arange(4, dtype=np.float32) if with_sinks else None
    o, lse = na.attention(q, k, v, sinks=sinks, return_lse=True)
    assert_same_bits(o, np.zeros_like(q))
    expected = -np.inf if sinks is None else sinks[:, np.newaxis]
    np.testing.assert_array_equal(lse, np.broadcast_to(expected, (2, 4, 5)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", WAYS)
def test_empty_rows_are_zero_whatever_the_values_are(
    isa: str, rng: np.random.Generator, how: str, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, HEADS, LENGTHS, (16, 20), dtype)
    options, empty = excluded_rows(how)
    for poison in (np.nan, np.inf):
        o, lse = na.attention(q, k, np.full_like(v, poison), return_lse=True, **options)
        assert (o[empty] == 0).all() and (lse[empty] == -np.inf).all()
        assert not np.isfinite(o[~empty]).any()
