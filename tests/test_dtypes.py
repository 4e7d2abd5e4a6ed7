"""A dtype by name means the same to everything that takes one, with ml_dtypes or without."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numattn as na
from child import output_of
from numattn.models.files.storage import storage_dtype

ONE = np.eye(4, dtype=np.float32)

COMPUTED = {
    "KVCache": lambda dtype: na.KVCache(1, 1, 1, 4, dtype=dtype).dtype,
    "PagedKVCache": lambda dtype: na.PagedKVCache(1, 1, 1, 4, pages=1, dtype=dtype).dtype,
    "plan": lambda dtype: na.plan((1, 1, 2, 4), (1, 1, 2, 4), dtype=dtype).kernel,
}
STORED = {
    "Linear": lambda dtype: na.Linear(ONE, dtype=dtype).dtype,
    "MultiHeadAttention": lambda dtype: na.MultiHeadAttention(2, ONE, ONE, ONE, ONE, dtype=dtype),
    "a model": storage_dtype,
}
BFLOAT16 = ("bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("name", COMPUTED | STORED)
def test_names_and_types_are_one(name: str) -> None:
    make = (COMPUTED | STORED)[name]
    for alike in (BFLOAT16, ("float32", np.float32, np.dtype("float32"), "f4")):
        results = {repr(make(dtype)).partition(" at 0x")[0] for dtype in alike}
        assert len(results) == 1


@pytest.mark.parametrize("name", COMPUTED | STORED)
@pytest.mark.parametrize(
    ("dtype", "named"),
    [
        (np.float64, "float64"),
        ("float64", "float64"),
        (np.int16, "int16"),
        (ml_dtypes.float8_e4m3fn, "float8_e4m3fn"),
        (">f4", ">f4"),
        ("bf16", "'bf16'"),
        ("none such", "'none such'"),
        (3.5, "3.5"),
        ([("bfloat16", np.uint16)], r"\[\('bfloat16', '<u2'\)\]"),
    ],
)
def test_another_dtype_is_a_value_error(name: str, dtype: Any, named: str) -> None:
    known = (
        "float32, float16 or bfloat16" if name in COMPUTED else "float32, bfloat16, int8 or w8a8"
    )
    with pytest.raises(ValueError, match=f"^dtype must be {known}, not {named}$"):
        (COMPUTED | STORED)[name](dtype)


def test_without_ml_dtypes_all_say_the_same() -> None:
    """But for Linear, which needs the name alone: its arrays may be float32."""
    script = """
        import sys
        sys.modules["ml_dtypes"] = None  # importing it fails
        import numpy as np
        import numattn as na
        from numattn.models.files.storage import storage_dtype
        one = np.eye(4, dtype=np.float32)
        for make in (
            lambda dtype: na.KVCache(1, 1, 1, 4, dtype=dtype),
            lambda dtype: na.PagedKVCache(1, 1, 1, 4, pages=1, dtype=dtype),
            lambda dtype: na.plan((1, 1, 2, 4), (1, 1, 2, 4), dtype=dtype),
            lambda dtype: na.MultiHeadAttention(2, one, one, one, one, dtype=dtype),
            storage_dtype,
        ):
            make("float32")
            try:
                make("bfloat16")
            except ImportError as error:
                print(error)
        print(na.Linear(one, dtype="bfloat16")(one).trace())
    """
    said = "bfloat16 needs ml_dtypes: pip install ml_dtypes"
    assert output_of(script).splitlines() == [said] * 5 + ["4.0"]
