"""`plan` tells beforehand what a call will do. (That its bytes are true: test_rules_memory.py.)"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES

SHAPE = (2, 8, 300, 64)
ATTRIBUTES = ("kernel", "isa", "query_block", "key_block", "threads", "scratch_bytes", "flops")


def blocks(plan: Any) -> tuple[Any, ...]:
    return plan.kernel, plan.isa, plan.query_block, plan.key_block, plan.flops


@pytest.mark.parametrize("dtype", DTYPES)
def test_attributes(isa: str, dtype: str) -> None:
    plan = na.plan(SHAPE, SHAPE, dtype=dtype)
    assert plan.isa == isa
    assert isinstance(plan.kernel, str) and plan.kernel
    assert plan.query_block >= 1 and plan.key_block >= 1 and plan.threads >= 1
    assert plan.scratch_bytes >= 0
    same = na.plan(SHAPE, SHAPE, dtype=DTYPES[dtype])
    assert blocks(same) == blocks(plan)


# The kernel of many rows by instruction set, dtype and precision; any other is "attend".
PAIR_KERNELS = {
    ("avx512bf16", "bfloat16", "highest"): "attend_bfloat16",
    ("avx512bf16", "bfloat16", "high"): "attend_bfloat16",
    ("amx", "bfloat16", "highest"): "attend_bfloat16",
    ("amx", "bfloat16", "high"): "attend_bfloat16",
    ("amx", "float32", "high"): "attend_high",
    ("neonbf16", "bfloat16", "highest"): "attend_bfloat16",
    ("neonbf16", "bfloat16", "high"): "attend_bfloat16",
}


@pytest.mark.parametrize("precision", ["highest", "high"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernel_is_named(isa: str, dtype: str, precision: str) -> None:
    plan = na.plan(SHAPE, SHAPE, dtype=dtype, precision=precision)
    assert plan.kernel == PAIR_KERNELS.get((isa, dtype, precision), "attend")
    assert f"{plan.kernel} kernel on {isa}" in str(plan)
    few = na.plan((2, 8, 1, 64), SHAPE, dtype=dtype, precision=precision)
    assert few.kernel == "decode"


def test_printed_it_tells_everything(isa: str) -> None:
    plan = na.plan(SHAPE, SHAPE)
    for attribute in ("kernel", "isa", "query_block", "key_block", "threads"):
        assert str(getattr(plan, attribute)) in str(plan), attribute
    assert f"{plan.scratch_bytes:,}" in str(plan)


def test_flops_are_those_of_the_two_products(isa: str) -> None:
    """2·D for each score and 2·Dv for each weighed value, B·Hq·Sq·Sk times."""
    plan = na.plan((2, 8, 300, 64), (2, 4, 500, 64), (2, 4, 500, 40))
    assert plan.flops == 2 * 8 * 300 * 500 * 2 * (64 + 40)
    assert na.plan((2, 8, 300, 64), (2, 4, 500, 64)).flops == 2 * 8 * 300 * 500 * 2 * (64 + 64)


@pytest.mark.parametrize(
    "options",
    [{"is_causal": True}, {"window": (9, 0)}, {"kv_lens": [100, 100]}, {"softcap": 3.0}],
    ids=str,
)
def test_flops_count_hidden_keys_too(isa: str, options: dict[str, Any]) -> None:
    assert na.plan(SHAPE, SHAPE, **options).flops == na.plan(SHAPE, SHAPE).flops


@pytest.mark.parametrize("shape", [SHAPE, (1, 32, 1, 64), (1, 1, 1, 128), (4, 2, 2000, 40)])
def test_blocks_follow_from_shapes_and_not_from_threads(
    isa: str, shape: tuple[int, int, int, int]
) -> None:
    keys = (shape[0], shape[1], 4096, shape[3])
    plans = [na.plan(shape, keys, num_threads=n) for n in (1, 2, 3, None)]
    assert len({blocks(plan) for plan in plans}) == 1
    assert plans[0].threads == 1
    assert plans[0].scratch_bytes <= plans[-1].scratch_bytes


def test_scratch_does_not_grow_with_the_keys(isa: str) -> None:
    """There is no S×S buffer, and no row of scores over all keys either."""
    sizes = [
        na.plan((1, 8, n, 64), (1, 8, n, 64), num_threads=1).scratch_bytes
        for n in (4096, 16384, 1 << 20)
    ]
    # float32 is not repacked, so that only the list of work may grow.
    assert sizes[-1] <= sizes[0] + 8 * (1 << 20)
    assert sizes[-1] < 8 * (1 << 20) * 64 * 4 // 8


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_layouts_and_three_dimensions(isa: str, layout: str) -> None:
    expected = na.plan((2, 8, 300, 64), (2, 4, 500, 64))
    swapped = na.plan((2, 300, 8, 64), (2, 500, 4, 64), layout="bshd")
    assert blocks(swapped) == blocks(expected)
    one = na.plan((8, 300, 64), (4, 500, 64))
    assert one.flops * 2 == expected.flops


@pytest.mark.parametrize("length", [2**24, 2**31, 2**40])
def test_flops_of_long_inputs_do_not_wrap(isa: str, length: int) -> None:
    shape = (1, 64, length, 128)
    exact = 64 * length * length * 2 * (128 + 128)
    try:
        plan = na.plan(shape, shape)
    except ValueError as error:
        assert exact >= 2**63 or 64 * length * 128 * 4 >= 2**63
        assert str(length) in str(error)
    else:
        assert plan.flops == exact
        assert 0 <= plan.scratch_bytes < 2**63


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        (((2, 8, 300, 64), (2, 8, 300, 63)), {}, ValueError, r"\(2, 8, 300, 63\)"),
        (((2, 8, 300, 64), (2, 3, 300, 64)), {}, ValueError, r"\(2, 3, 300, 64\)"),
        (((2, 8, 300, 64), (8, 300, 64)), {}, ValueError, r"\(8, 300, 64\)"),
        (((2, 8, -1, 64), (2, 8, 300, 64)), {}, ValueError, r"-1"),
        ((SHAPE, SHAPE), {"dtype": "float64"}, ValueError, r"float64"),
        ((SHAPE, SHAPE), {"dtype": "int8"}, ValueError, r"int8"),
        ((SHAPE, SHAPE), {"kv_lens": [1, 301]}, ValueError, r"301"),
        ((SHAPE, SHAPE), {"window": (-5, 0)}, ValueError, r"-5"),
        ((SHAPE, SHAPE), {"num_threads": 0}, ValueError, r"num_threads"),
        ((SHAPE, SHAPE), {"layout": "dbsh"}, ValueError, r"dbsh"),
        ((SHAPE, SHAPE), {"precision": "medium"}, ValueError, r"'highest' or 'high', not 'medium'"),
    ],
    ids=str,
)
def test_errors_are_those_of_the_call(
    arguments: Any, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        na.plan(*arguments, **options)


def test_plan_of_every_score_argument(isa: str) -> None:
    plan = na.plan(
        SHAPE,
        SHAPE,
        mask=np.ones((1, 1, 300, 300), bool),
        bias=np.zeros((1, 8, 1, 300), np.float32),
        scale=0.1,
        softcap=5.0,
        alibi_slopes=np.zeros(8, np.float32),
        sinks=np.zeros(8, np.float32),
    )
    assert plan.flops == na.plan(SHAPE, SHAPE).flops
    assert all(hasattr(plan, name) for name in ATTRIBUTES)
