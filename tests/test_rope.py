"""`apply_rope` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal
from guard_pages import EDGES, guarded
from numattn import reference
from numattn.position import Rope
from strides import RELAYOUTS
from tolerance import UNIT_ROUNDOFF, assert_same_bits

Array = Any

# (elements of a head, pairs that turn): vectors of 4, 8 and 16 floats, straddled; partial ones.
WIDTHS = [(1, 0), (2, 1), (5, 2), (15, 7), (16, 8), (31, 15), (32, 16), (33, 16), (34, 17),
          (48, 24), (64, 32), (64, 33 // 2), (80, 16), (96, 47), (128, 64), (129, 64)]  # fmt: skip


def tables(rng: np.random.Generator, shape: tuple[int, ...], dtype: str = "float32") -> Any:
    """Return random tables: what is to be right does not depend on cos² + sin² being 1."""
    return normal(rng, shape, dtype), normal(rng, shape, dtype)


def assert_close(got: Array, x: Array, cos: Array, sin: Array, **options: Any) -> None:
    """Check entry by entry.

    In float32 two products and their difference round, each by u of its size:
    δ = 2·u·(|x_a·cos| + |x_b·sin|). In 16 bits the result then rounds once, which errs by what
    rounding the reference does and 2·δ (tolerance.py).
    """
    exact = reference.apply_rope(x, cos, sin, **options)
    assert got.dtype == x.dtype and got.shape == x.shape
    wide = np.abs(x.astype(np.float64))
    negative = -np.abs(np.asarray(sin).astype(np.float64))
    terms = reference.apply_rope(wide, np.abs(cos.astype(np.float64)), negative, **options)
    mirrored = reference.apply_rope(wide, np.abs(cos.astype(np.float64)), -negative, **options)
    bound = 2.01 * UNIT_ROUNDOFF["float32"] * np.maximum(terms, mirrored)
    if x.dtype != np.float32:
        bound = np.abs(exact.astype(x.dtype).astype(np.float64) - exact) + 2 * bound
    error = np.abs(got.astype(np.float64) - exact)
    assert (error <= bound).all(), (error - bound).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_widths(
    isa: str, rng: np.random.Generator, dtype: str, interleaved: bool, layout: str
) -> None:
    for width, pairs in WIDTHS:
        x = normal(rng, (2, 3, 5, width), dtype)
        length = x.shape[2 if layout == "bhsd" else 1]
        options = {"interleaved": interleaved, "layout": layout}
        for shape in ((length, pairs), (2, length, pairs)):
            cos, sin = tables(rng, shape)
            assert_close(na.apply_rope(x, cos, sin, **options), x, cos, sin, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
def test_tables_of_every_dtype(
    isa: str, rng: np.random.Generator, dtype: str, interleaved: bool
) -> None:
    x = normal(rng, (2, 3, 20, 40))
    cos, sin = tables(rng, (20, 19), dtype)
    assert_close(
        na.apply_rope(x, cos, sin, interleaved=interleaved), x, cos, sin, interleaved=interleaved
    )
    mixed = na.apply_rope(x, cos, sin.astype(np.float32), interleaved=interleaved)
    assert_same_bits(mixed, na.apply_rope(x, cos, sin, interleaved=interleaved))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("batched", [False, True])
def test_positions_choose_rows(
    isa: str, rng: np.random.Generator, interleaved: bool, layout: str, batched: bool
) -> None:
    x = normal(rng, (3, 7, 7, 24))
    cos, sin = tables(rng, (50, 10))
    positions = rng.integers(0, 50, (3, 7) if batched else (7,)).astype(np.int32)
    options = {"interleaved": interleaved, "layout": layout}
    got = na.apply_rope(x, cos, sin, positions=positions, **options)
    assert_close(got, x, cos, sin, positions=positions, **options)
    assert_same_bits(got, na.apply_rope(x, cos[positions], sin[positions], **options))


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("with_positions", [False, True])
def test_without_a_batch(
    isa: str, rng: np.random.Generator, layout: str, with_positions: bool
) -> None:
    x = normal(rng, (4, 6, 16))
    length = x.shape[1 if layout == "bhsd" else 0]
    cos, sin = tables(rng, (length, 8))
    positions = rng.permutation(length) if with_positions else None
    got = na.apply_rope(x, cos, sin, positions=positions, layout=layout)
    assert_close(got, x, cos, sin, positions=positions, layout=layout)
    whole = na.apply_rope(x[None], cos, sin, positions=positions, layout=layout)
    assert_same_bits(got, whole[0])


@pytest.mark.parametrize(("heads", "length", "width"), [(3, 900, 40), (40, 30, 128), (2, 2, 40000)])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("interleaved", [False, True])
def test_more_than_one_item(
    isa: str,
    rng: np.random.Generator,
    heads: int,
    length: int,
    width: int,
    layout: str,
    interleaved: bool,
) -> None:
    shape = (2, heads, length, width) if layout == "bhsd" else (2, length, heads, width)
    x = normal(rng, shape)
    cos, sin = tables(rng, (2, length, width // 2))
    options = {"interleaved": interleaved, "layout": layout}
    alone = na.apply_rope(x, cos, sin, num_threads=1, **options)
    assert_close(alone, x, cos, sin, **options)
    for num_threads in (2, 3, 7, None):
        assert_same_bits(na.apply_rope(x, cos, sin, num_threads=num_threads, **options), alone)


@pytest.mark.parametrize("shape", [(0, 3, 5, 8), (2, 0, 5, 8), (2, 3, 0, 8)])
def test_empty(isa: str, shape: tuple[int, ...]) -> None:
    table = np.ones((shape[2], 4), np.float32)
    got = na.apply_rope(np.zeros(shape, np.float32), table, table)
    assert got.shape == shape


# --- what it means --------------------------------------------------------------------------------


@pytest.mark.parametrize("interleaved", [False, True])
def test_scores_depend_on_differences_alone(
    isa: str, rng: np.random.Generator, interleaved: bool
) -> None:
    q, k = normal(rng, (1, 1, 1, 32)), normal(rng, (1, 1, 1, 32))
    rope = Rope(32, interleaved=interleaved)

    def score(query_position: int, key_position: int) -> float:
        turned = [
            na.apply_rope(x, *rope.tables([position]), interleaved=rope.interleaved)
            for x, position in ((q, query_position), (k, key_position))
        ]
        return float((turned[0].astype(np.float64) * turned[1]).sum())

    for distance in (0, 1, 50):
        scores = [score(start + distance, start) for start in (0, 3, 1000)]
        # Products of unit size and angles' tables, rounded by u each.
        assert np.ptp(scores) <= 8 * 32 * UNIT_ROUNDOFF["float32"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_interleaved_is_another_order_of_the_same(
    isa: str, rng: np.random.Generator, dtype: str
) -> None:
    x = normal(rng, (2, 3, 9, 70), dtype)
    cos, sin = tables(rng, (9, 35))
    halves = np.concatenate((x[..., 0::2], x[..., 1::2]), axis=-1)
    expected = na.apply_rope(halves, cos, sin)
    got = na.apply_rope(x, cos, sin, interleaved=True)
    np.testing.assert_array_equal(got[..., 0::2], expected[..., :35])
    np.testing.assert_array_equal(got[..., 1::2], expected[..., 35:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
def test_position_0_changes_nothing(
    isa: str, rng: np.random.Generator, dtype: str, interleaved: bool
) -> None:
    x = normal(rng, (1, 2, 1, 50), dtype)
    x[..., 3] = np.finfo(np.float32).smallest_subnormal if dtype == "float32" else 0
    cos, sin = Rope(48).tables([0])
    np.testing.assert_array_equal(na.apply_rope(x, cos, sin, interleaved=interleaved), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
def test_nan_stays_in_its_pair(
    isa: str, rng: np.random.Generator, dtype: str, interleaved: bool
) -> None:
    x = normal(rng, (1, 2, 4, 41), dtype)
    cos, sin = tables(rng, (4, 18))
    clean = na.apply_rope(x, cos, sin, interleaved=interleaved)
    x[0, 1, 2, 20] = np.nan
    got = na.apply_rope(x, cos, sin, interleaved=interleaved)
    expected = clean.copy()
    expected[0, 1, 2, [20, 21] if interleaved else [2, 20]] = np.nan
    np.testing.assert_array_equal(got.astype(float), expected.astype(float))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_rest_is_copied_bit_by_bit(isa: str, dtype: str) -> None:
    """Every pattern of 16 bits, among them signalling NaN and subnormals."""
    kind = DTYPES[dtype]
    patterns = np.arange(65536, dtype=np.uint16).view(np.uint16)
    if kind.itemsize == 4:
        patterns = (patterns.astype(np.uint32) << 16) | 1
    x = patterns.view(kind).reshape(1, 1, 256, 256)
    table = np.ones((256, 3), np.float32)
    got = na.apply_rope(x, table, table)
    assert_same_bits(got[..., 6:], x[..., 6:])
    spread = np.repeat(x, 2, axis=-1)[..., ::2]
    assert_same_bits(na.apply_rope(spread, table, table)[..., 6:], x[..., 6:])


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("relayout", RELAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
def test_strides(
    isa: str, rng: np.random.Generator, relayout: str, dtype: str, interleaved: bool
) -> None:
    change = RELAYOUTS[relayout]
    x = normal(rng, (2, 3, 17, 40), dtype)
    cos, sin = tables(rng, (2, 17, 18))
    expected = na.apply_rope(x, cos, sin, interleaved=interleaved)
    assert_same_bits(na.apply_rope(change(x), cos, sin, interleaved=interleaved), expected)
    got = na.apply_rope(x, change(cos), change(sin), interleaved=interleaved)
    assert_same_bits(got, expected)
    positions = np.array([0, 16, 3] * 6)[:17]
    chosen = na.apply_rope(x, cos[0], sin[0], positions=positions)
    got = na.apply_rope(x, change(cos[0]), change(sin[0]), positions=positions[::-1][::-1])
    assert_same_bits(got, chosen)


def test_broadcast_arrays(isa: str, rng: np.random.Generator) -> None:
    x, (cos, sin) = normal(rng, (1, 1, 5, 16)), tables(rng, (1, 8))
    wide = np.broadcast_to(x, (2, 3, 5, 16))
    rows = [np.broadcast_to(table, (2, 5, 8)) for table in (cos, sin)]
    assert_same_bits(
        na.apply_rope(wide, *rows), na.apply_rope(wide.copy(), *(table.copy() for table in rows))
    )


def test_a_batch_of_tables_that_is_misaligned_in_one_entry(
    isa: str, rng: np.random.Generator
) -> None:
    """Entry 0 can be read where it lies, entry 1 cannot."""
    x, values = normal(rng, (2, 3, 5, 16)), normal(rng, (2, 5, 8))
    memory = bytearray(2 * 162)
    table = np.ndarray((2, 5, 8), np.float32, memory, 0, (162, 32, 4))
    table[...] = values
    for interleaved in (False, True):
        got = na.apply_rope(x, table, table, interleaved=interleaved)
        assert_same_bits(got, na.apply_rope(x, values, values, interleaved=interleaved))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("view", ["whole", "padded_rows", "axes_swapped", "reversed", "sliced"])
def test_in_place(
    isa: str, rng: np.random.Generator, dtype: str, interleaved: bool, view: str
) -> None:
    values = normal(rng, (2, 3, 17, 70), dtype)
    x = {
        "whole": lambda: values.copy(),
        "padded_rows": lambda: RELAYOUTS["padded_rows"](values),
        "axes_swapped": lambda: RELAYOUTS["axes_swapped"](values),
        "reversed": lambda: values[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
        "sliced": lambda: np.repeat(values, 2, axis=2)[:, :, ::2],
    }[view]()
    cos, sin = tables(rng, (17, 33))
    expected = na.apply_rope(values, cos, sin, interleaved=interleaved)
    assert na.apply_rope(x, cos, sin, interleaved=interleaved, out=x) is x
    assert_same_bits(x, expected)


def test_out_of_other_strides(isa: str, rng: np.random.Generator) -> None:
    x, (cos, sin) = normal(rng, (2, 3, 17, 40)), tables(rng, (17, 20))
    memory = np.zeros((2, 17, 3, 43), np.float32)
    out = memory.swapaxes(1, 2)[..., 2:42]
    assert na.apply_rope(x, cos, sin, out=out) is out
    assert_same_bits(out, na.apply_rope(x, cos, sin))
    assert not memory[..., :2].any() and not memory[..., 42:].any()


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
def test_nothing_beside_the_arrays_is_touched(
    isa: str, rng: np.random.Generator, edge: str, dtype: str, interleaved: bool
) -> None:
    """Nor rows of the tables that no position names."""
    for width, pairs in ((2, 1), (17, 8), (33, 15), (66, 33)):
        x = normal(rng, (2, 2, 3, width), dtype)
        values = normal(rng, (1, 1, 2000, pairs), dtype)
        positions = np.array([1003, 1001, 1002])
        table = guarded(values, edge, visible=[(1001, 1004)])[0, 0]
        out = guarded(np.zeros_like(x), edge)
        options = {"positions": positions, "interleaved": interleaved}
        na.apply_rope(guarded(x, edge), table, table, out=out, **options)
        dense = values[0, 0]
        assert_close(np.array(out), x, dense, dense, **options)
        na.apply_rope(out, table, table, out=out, **options)


# --- errors ---------------------------------------------------------------------------------------


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


X, TABLE = zeros(2, 3, 5, 16), zeros(5, 8)
BAD_VALUES: dict[str, dict[str, Any]] = {
    r"x must have 3 or 4 dimensions .*\(5, 16\)": {"x": zeros(5, 16)},
    r"x .*at most 4": {"x": zeros(1, 2, 3, 5, 16)},
    r"x must have at least one element .*\(2, 3, 5, 0\)": {"x": zeros(2, 3, 5, 0)},
    r"cos and sin must have one shape, not \(5, 8\) and \(5, 7\)": {"sin": zeros(5, 7)},
    r"\(S, R\) or \(B, S, R\) with B = 2 and S = 5, not \(6, 8\)": {
        "cos": zeros(6, 8),
        "sin": zeros(6, 8),
    },
    r"B = 2 and S = 5, not \(3, 5, 8\)": {"cos": zeros(3, 5, 8), "sin": zeros(3, 5, 8)},
    r"B = 2 and S = 5, not \(8,\)": {"cos": zeros(8), "sin": zeros(8)},
    r"B = 2 and S = 3, not \(5, 8\)": {"layout": "bshd"},
    r"cos and sin of shape \(5, 9\) turn 9 pairs .* x is 16": {
        "cos": zeros(5, 9),
        "sin": zeros(5, 9),
    },
    r"cos must have 2 dimensions \(P, R\).*\(2, 5, 8\)": {
        "cos": zeros(2, 5, 8),
        "sin": zeros(2, 5, 8),
        "positions": [0] * 5,
    },
    r"positions must have shape \(S,\) or \(B, S\) with B = 2 and S = 5, not \(4,\)": {
        "positions": [0] * 4
    },
    r"with B = 2 and S = 5, not \(5, 2\)": {"positions": np.zeros((5, 2), int)},
    r"positions must have shape \(S,\) or \(B, S\), not \(\)": {"positions": 3},
    r"positions must have shape .*\(1, 2, 5\)": {"positions": np.zeros((1, 2, 5), int)},
    "position 5 is not in the tables cos and sin, which have 5 rows": {
        "positions": [0, 1, 2, 5, 4]
    },
    "position -1 is not in the tables": {"positions": [0, 1, 2, -1, 4]},
    "layout must be 'bhsd' or 'bshd', not 'sbhd'": {"layout": "sbhd"},
    "layout must be 'bhsd' or 'bshd', not 3": {"layout": 3},
    "num_threads must be at least 1, not 0": {"num_threads": 0},
    r"out must have shape \(2, 3, 5, 16\), not \(2, 3, 5, 15\)": {"out": zeros(2, 3, 5, 15)},
    "out must have x's dtype float32, not float16": {"out": X.astype(np.float16)},
    "out .*float64": {"out": X.astype(np.float64)},
    "out must be contiguous along its last dimension": {"out": zeros(2, 3, 5, 32)[..., ::2]},
    "out must not be a broadcast array|out is read-only": {
        "out": np.broadcast_to(zeros(16), (2, 3, 5, 16))
    },
}


@pytest.mark.parametrize("message", BAD_VALUES)
def test_values_that_are_refused(message: str) -> None:
    arguments = {"x": X, "cos": TABLE, "sin": TABLE, **BAD_VALUES[message]}
    out = arguments.get("out")
    before = None if out is None else out.copy()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        na.apply_rope(**arguments)
    if out is not None:
        assert_same_bits(np.array(out), before)


@pytest.mark.parametrize("which", ["x", "cos", "sin"])
@pytest.mark.parametrize("dtype", ["float64", "int32", "bool", ">f4", "object"])
def test_other_dtypes_are_refused(which: str, dtype: str) -> None:
    arguments = {"x": X, "cos": TABLE, "sin": TABLE}
    arguments[which] = arguments[which].astype(dtype)
    with pytest.raises(TypeError, match=f"(?s){which}.*(float32|byte)"):
        na.apply_rope(**arguments)


def test_positions_must_be_integers() -> None:
    with pytest.raises(TypeError, match="positions must hold integers, not float64"):
        na.apply_rope(X, TABLE, TABLE, positions=[0.0] * 5)


def test_out_that_overlaps(rng: np.random.Generator) -> None:
    memory = normal(rng, (2, 3, 6, 16))
    before = memory.copy()
    x = memory[:, :, :5]
    for out in (memory[:, :, 1:], x[::-1], x[:, :, ::-1]):
        with pytest.raises(ValueError, match="out overlaps x without being the same array"):
            na.apply_rope(x, TABLE, TABLE, out=out)
    for name in ("cos", "sin"):
        tables = {"cos": TABLE, "sin": TABLE, name: x[0, 0, :, :8]}
        with pytest.raises(ValueError, match=f"out overlaps {name}"):
            na.apply_rope(X, **tables, out=x)
    assert_same_bits(memory, before)
    with pytest.raises(TypeError, match="out must be a NumPy array or a tensor, not list"):
        na.apply_rope(X, TABLE, TABLE, out=X.tolist())  # type: ignore[arg-type]
