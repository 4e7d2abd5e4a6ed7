"""numattn.h: packed projections and rotary positions, the bits of Python's."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

import numattn as na
from c_library import INVALID, OK, Ints, LinearArgs, RopeArgs, Tensor

pytestmark = pytest.mark.slow

STORAGES = {"float32": 0, "bfloat16": 2, "int8": 4, "w8a8": 256}


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


@pytest.mark.parametrize("storage", STORAGES)
def test_linear(c_isa: ctypes.CDLL, rng: np.random.Generator, storage: str) -> None:
    weight, bias, x = normal(rng, 50, 40), normal(rng, 50), normal(rng, 6, 40)
    factor, residual = normal(rng, 6, 50), normal(rng, 6, 50)
    layer = na.Linear(weight, bias, dtype=storage)
    expected = layer(x, activation="silu", factor=factor, residual=residual)
    handle = ctypes.c_void_p()
    made = c_isa.numattn_linear_create(
        ctypes.byref(Tensor.of(weight)), ctypes.byref(Tensor.of(bias)),
        STORAGES[storage], 0, ctypes.byref(handle),
    )  # fmt: skip
    assert made == OK
    weight[...] = np.nan  # it was copied
    args = LinearArgs(struct_size=ctypes.sizeof(LinearArgs), activation=4)
    args.x, args.factor = Tensor.of(x), Tensor.of(factor)
    args.out = args.residual = Tensor.of(residual)
    assert c_isa.numattn_linear_run(handle, ctypes.byref(args)) == OK
    assert residual.tobytes() == expected.tobytes()
    # Another layer, here the same, in the factor's place; and a structure that does not know of it.
    args.factor, args.residual, args.out = Tensor(), Tensor(), Tensor.of(factor)
    args.factor_layer = handle
    expected = layer(x, activation="silu", factor=layer)
    assert c_isa.numattn_linear_run(handle, ctypes.byref(args)) == OK
    assert factor.tobytes() == expected.tobytes()
    args.struct_size = LinearArgs.factor_layer.offset
    assert c_isa.numattn_linear_run(handle, ctypes.byref(args)) == OK
    assert factor.tobytes() == layer(x, activation="silu").tobytes()
    args.x = Tensor.of(x[:, :39])
    assert c_isa.numattn_linear_run(handle, ctypes.byref(args)) == INVALID
    assert b"x must have 40 features" in c_isa.numattn_last_error()
    c_isa.numattn_linear_destroy(handle)
    c_isa.numattn_linear_destroy(None)


@pytest.mark.parametrize("storage", [-1, 1, 3, 5, 255, 257])
def test_other_storages_are_refused(library: ctypes.CDLL, storage: int) -> None:
    handle = ctypes.c_void_p(1)
    weight = Tensor.of(np.ones((3, 2), np.float32))
    made = library.numattn_linear_create(
        ctypes.byref(weight), None, storage, 0, ctypes.byref(handle)
    )
    assert made == INVALID and handle.value is None
    assert b"storage" in library.numattn_last_error()


@pytest.mark.parametrize("positions", [None, (9,), (2, 9)])
@pytest.mark.parametrize("interleaved", [False, True])
def test_rope(
    c_isa: ctypes.CDLL,
    rng: np.random.Generator,
    positions: tuple[int, ...] | None,
    interleaved: bool,
) -> None:
    x, rows = normal(rng, 2, 9, 3, 16), 9 if positions is None else 40
    cos, sin = normal(rng, rows, 6), normal(rng, rows, 6)
    out = np.empty_like(x)
    args = RopeArgs(struct_size=ctypes.sizeof(RopeArgs), layout=1, interleaved=interleaved)
    args.x, args.out, args.cos, args.sin = (Tensor.of(a) for a in (x, out, cos, sin))
    chosen = None if positions is None else rng.integers(0, rows, positions)
    if chosen is not None:
        args.positions = Ints.of(chosen)
    assert c_isa.numattn_rope(ctypes.byref(args)) == OK, c_isa.numattn_last_error()
    expected = na.apply_rope(x, cos, sin, positions=chosen, interleaved=interleaved, layout="bshd")
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("count", "words"), [(8, "positions must have shape (S,) or (B, S)"), (9, "position 40 is not")]
)
def test_rope_says_what_is_wrong(library: ctypes.CDLL, count: int, words: str) -> None:
    x, table, chosen = (
        np.ones((2, 3, 9, 4), np.float32),
        np.ones((40, 2), np.float32),
        np.full(9, 40),
    )
    args = RopeArgs(struct_size=ctypes.sizeof(RopeArgs), positions=Ints.of(chosen[:count]))
    args.x, args.out, args.cos, args.sin = (Tensor.of(a) for a in (x, x.copy(), table, table))
    assert library.numattn_rope(ctypes.byref(args)) == INVALID
    assert words in library.numattn_last_error().decode()
