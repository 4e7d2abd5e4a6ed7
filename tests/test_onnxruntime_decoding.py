"""GroupQueryAttention and MultiHeadAttention beside ONNX Runtime's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnxruntime_nodes import model_of, run, session_of  # noqa: E402

B, H, HKV, D = 2, 6, 2, 32
GROUP = (
    "query key value past_key past_value seqlens_k total_sequence_length cos_cache sin_cache "
    "position_ids attention_bias head_sink k_scale v_scale q_norm_weight k_norm_weight "
    "query_seqlens"
).split()
HEADS = {"num_heads": H, "kv_num_heads": HKV}
PRESENTS = ("output", "present_key", "present_value")
MULTI = (
    "query key value bias key_padding_mask attention_bias past_key past_value "
    "past_sequence_length cache_indirection"
).split()
CLOSE = {"rtol": 0, "atol": 4e-6}


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def new_tokens(
    rng: np.random.Generator, length: int, totals: Sequence[int]
) -> dict[str, np.ndarray]:
    batch = len(totals)
    return {
        "query": normal(rng, batch, length, H * D),
        "key": normal(rng, batch, length, HKV * D),
        "value": normal(rng, batch, length, HKV * D),
        "seqlens_k": np.array(totals, np.int32) - 1,
        "total_sequence_length": np.array(max(totals), np.int32),
    }


def past(rng: np.random.Generator, batch: int, room: int) -> dict[str, np.ndarray]:
    return {name: normal(rng, batch, HKV, room, D) for name in ("past_key", "past_value")}


def tables(pairs: int = D // 2, rows: int = 80) -> dict[str, np.ndarray]:
    angle = np.arange(rows)[:, None] * 100.0 ** (-np.arange(pairs) / pairs)
    return {
        "cos_cache": np.cos(angle).astype(np.float32),
        "sin_cache": np.sin(angle).astype(np.float32),
    }


def beside(
    operator: str,
    inputs: dict[str, np.ndarray],
    names: Sequence[str],
    outputs: Sequence[str],
    **attributes: Any,
) -> list[np.ndarray]:
    """Return numattn's outputs, which are close to ONNX Runtime's own."""
    own, theirs = (
        run(session_of(model_of(operator, inputs, names, outputs, domain, **attributes)), inputs)
        for domain in ("numattn", "com.microsoft")
    )
    for mine, wanted in zip(own, theirs, strict=True):
        np.testing.assert_allclose(mine, wanted, **CLOSE)
    return own


PROMPTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale and softcap": {"scale": 0.4, "softcap": 2.0},
    "smooth softmax": {"smooth_softmax": 1},
    "both ways": {"causal": 0},
    **{f"window of {width}": {"local_window_size": width} for width in (1, 2, 9, 100)},
    "rotary": {"do_rotary": 1},
    "interleaved": {"do_rotary": 1, "rotary_interleaved": 1},
    "partly rotary": {"do_rotary": 1, "pairs": D // 4},
}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt(rng: np.random.Generator, name: str) -> None:
    settings = dict(PROMPTS[name])
    inputs = new_tokens(rng, 23, [23, 23]) | tables(settings.pop("pairs", D // 2))
    beside("GroupQueryAttention", inputs, GROUP, PRESENTS, **HEADS, **settings)


def test_a_prompt_that_is_padded(rng: np.random.Generator) -> None:
    inputs = new_tokens(rng, 23, [23, 5]) | tables()
    beside("GroupQueryAttention", inputs, GROUP, PRESENTS, **HEADS, do_rotary=1)


def test_sinks_and_a_bias(rng: np.random.Generator) -> None:
    inputs = new_tokens(rng, 23, [23, 23])
    inputs |= {"head_sink": normal(rng, H), "attention_bias": normal(rng, 1, H, 23, 23)}
    beside("GroupQueryAttention", inputs, GROUP, PRESENTS, **HEADS)


@pytest.mark.parametrize("room", [30, 64])
@pytest.mark.parametrize("totals", [[31, 31], [31, 14]])
def test_a_step(rng: np.random.Generator, totals: list[int], room: int) -> None:
    inputs = new_tokens(rng, 1, totals) | past(rng, 2, room) | tables()
    own = beside(
        "GroupQueryAttention", inputs, GROUP, PRESENTS, **HEADS, do_rotary=1, local_window_size=7
    )
    assert own[1].shape == (B, HKV, max(room, 31), D)
    assert not own[1][1, :, totals[1] :].any()


def test_several_tokens_after_a_past(rng: np.random.Generator) -> None:
    inputs = new_tokens(rng, 5, [35]) | past(rng, 1, 64) | tables()
    inputs["attention_bias"] = normal(rng, 1, 1, 5, 35)
    beside("GroupQueryAttention", inputs, GROUP, PRESENTS, **HEADS, do_rotary=1)


def test_positions_of_the_caller(rng: np.random.Generator) -> None:
    """Of a prompt the first one counts."""
    inputs = new_tokens(rng, 1, [31, 14]) | past(rng, 2, 40) | tables()
    inputs["position_ids"] = np.array([[50], [3]])
    beside("GroupQueryAttention", inputs, GROUP, PRESENTS, **HEADS, do_rotary=1)
    inputs = new_tokens(rng, 9, [9, 9]) | tables()
    inputs["position_ids"] = np.array([range(7, 16), range(9)])
    beside("GroupQueryAttention", inputs, GROUP, PRESENTS, **HEADS, do_rotary=1)


def test_packed_projections(rng: np.random.Generator) -> None:
    inputs = new_tokens(rng, 1, [31, 31]) | past(rng, 2, 64) | tables()
    packed = [inputs.pop("key"), inputs.pop("value")]
    inputs["query"] = np.concatenate([inputs["query"], *packed], -1)
    beside("GroupQueryAttention", inputs, GROUP, PRESENTS, **HEADS, do_rotary=1)


def test_presents_need_not_be_handed_on(rng: np.random.Generator) -> None:
    inputs = new_tokens(rng, 23, [23, 23]) | tables()
    beside("GroupQueryAttention", inputs, GROUP, ["output"], **HEADS, do_rotary=1)
    inputs = new_tokens(rng, 1, [31, 14]) | past(rng, 2, 40) | tables()
    alone, first = (
        run(session_of(model_of("GroupQueryAttention", inputs, GROUP, outputs, **HEADS)), inputs)[0]
        for outputs in (["output"], PRESENTS)
    )
    assert alone.tobytes() == first.tobytes()


@pytest.mark.parametrize("totals", [[31, 31], [31, 14]])
def test_past_and_present_in_one_buffer(rng: np.random.Generator, totals: list[int]) -> None:
    """Bound to the same memory, old tokens are not touched."""
    inputs = new_tokens(rng, 1, totals) | past(rng, 2, 64) | tables()
    session = session_of(
        model_of("GroupQueryAttention", inputs, GROUP, PRESENTS, **HEADS, do_rotary=1)
    )
    apart = run(session, inputs)
    binding = session.io_binding()
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(x) for name, x in inputs.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("output")
    for name in ("key", "value"):
        binding.bind_ortvalue_output(f"present_{name}", values[f"past_{name}"])
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], apart[0])
    for index, name in ((1, "past_key"), (2, "past_value")):
        buffer = values[name].numpy()
        for entry, total in enumerate(totals):
            np.testing.assert_array_equal(buffer[entry, :, :total], apart[index][entry, :, :total])
            np.testing.assert_array_equal(buffer[entry, :, total:], inputs[name][entry, :, total:])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_the_memory(rng: np.random.Generator, dtype: str) -> None:
    inputs = new_tokens(rng, 1, [31, 14]) | past(rng, 2, 64) | tables()
    inputs["head_sink"] = normal(rng, H)
    half = {name: x.astype(dtype) if x.dtype == np.float32 else x for name, x in inputs.items()}
    wide = {name: x if x.dtype.kind == "i" else x.astype(np.float32) for name, x in half.items()}
    got, expected = (
        run(
            session_of(model_of("GroupQueryAttention", x, GROUP, PRESENTS, **HEADS, do_rotary=1)), x
        )
        for x in (half, wide)
    )
    for mine, wanted in zip(got, expected, strict=True):
        assert mine.dtype == half["query"].dtype
        roundoff = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
        np.testing.assert_allclose(mine.astype(np.float32), wanted, rtol=0, atol=8 * roundoff)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"num_heads": 5}, "num_heads must be a multiple of kv_num_heads, not 5 and 2"),
        ({"local_window_size": 0}, "local_window_size must be -1, or at least 1"),
        ({"qk_output": 1}, "qk_output must be 0, not 1"),
        ({"sliding_window_cache": 1}, "sliding_window_cache must be 0, not 1"),
        ({"k_quant_type": "PER_TENSOR"}, "k_quant_type must be 'NONE', not 'PER_TENSOR'"),
    ],
)
def test_attributes_are_refused_with_the_session(
    rng: np.random.Generator, attributes: dict[str, Any], words: str
) -> None:
    inputs = new_tokens(rng, 9, [9, 9])
    with pytest.raises(Exception, match=f"numattn's GroupQueryAttention: {words}"):
        session_of(model_of("GroupQueryAttention", inputs, GROUP, PRESENTS, **HEADS | attributes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seqlens_k": np.array([9, 0], np.int32)}, "seqlens_k has 9, which does not fit"),
        ({"total_sequence_length": np.array(8, np.int32)}, "seqlens_k has 8"),
        ({"key": np.ones((2, 9, 8), np.float32)}, r"key must have shape \(2, 9, 64\)"),
        ({"k_scale": np.ones(1, np.float32)}, "k_scale is not implemented"),
        ({"query_seqlens": np.ones(2, np.int32)}, "query_seqlens is not implemented"),
        ({"head_sink": np.ones(2, np.float32)}, r"head_sink must have shape \(6\), not \(2\)"),
    ],
)
def test_inputs_are_refused(
    rng: np.random.Generator, change: dict[str, np.ndarray], words: str
) -> None:
    inputs = new_tokens(rng, 9, [9, 9]) | change
    with pytest.raises(Exception, match=f"numattn's GroupQueryAttention: .*{words}"):
        run(session_of(model_of("GroupQueryAttention", inputs, GROUP, PRESENTS, **HEADS)), inputs)


def test_a_position_beyond_the_tables(rng: np.random.Generator) -> None:
    inputs = new_tokens(rng, 9, [9, 9]) | tables(rows=8)
    model = model_of("GroupQueryAttention", inputs, GROUP, PRESENTS, **HEADS, do_rotary=1)
    with pytest.raises(Exception, match="position 8 is not in the tables"):
        run(session_of(model), inputs)


def encoder(rng: np.random.Generator, keys: int = 19) -> dict[str, np.ndarray]:
    lengths = {"query": 19, "key": keys, "value": keys}
    return {name: normal(rng, B, length, H * D) for name, length in lengths.items()}


MASKS: dict[str, np.ndarray] = {
    "lengths": np.array([19, 4], np.int32),
    "padding": (np.arange(19) < np.array([[19], [4]])).astype(np.int32),
    "holes": np.array([[1] * 19, [1, 0] * 9 + [1]], np.int32),
    "rows": np.tril(np.ones((2, 19, 19), np.int32)),
}


@pytest.mark.parametrize("mask", [*MASKS, None])
@pytest.mark.parametrize("bias", [False, True])
def test_an_encoder(rng: np.random.Generator, mask: str | None, bias: bool) -> None:
    inputs = encoder(rng)
    if bias:
        inputs["bias"] = normal(rng, 3 * H * D)
    if mask is not None:
        inputs["key_padding_mask"] = MASKS[mask]
    beside("MultiHeadAttention", inputs, MULTI, ["output"], num_heads=H)


@pytest.mark.parametrize("settings", [{}, {"unidirectional": 1}, {"scale": 0.5}])
def test_a_past(rng: np.random.Generator, settings: dict[str, Any]) -> None:
    inputs = encoder(rng)
    inputs |= {name: normal(rng, B, H, 12, D) for name in ("past_key", "past_value")}
    inputs["attention_bias"] = normal(rng, 1, H, 19, 31)
    beside("MultiHeadAttention", inputs, MULTI, PRESENTS, num_heads=H, **settings)


def test_another_sequence(rng: np.random.Generator) -> None:
    """Whose keys and values come as heads, as a decoder's of an encoder."""
    inputs = encoder(rng, 7)
    for name in ("key", "value"):
        inputs[name] = inputs[name].reshape(B, 7, H, D).swapaxes(1, 2).copy()
    beside("MultiHeadAttention", inputs, MULTI, ["output"], num_heads=H)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_bias_of_half_the_memory(rng: np.random.Generator, dtype: str) -> None:
    inputs = {name: x.astype(dtype) for name, x in encoder(rng).items()}
    terms = normal(rng, 3, H * D).astype(dtype)
    with_bias = {**inputs, "bias": terms.ravel()}
    (got,) = run(
        session_of(model_of("MultiHeadAttention", with_bias, MULTI, ["output"], num_heads=H)),
        with_bias,
    )
    added = {
        name: (x.astype(np.float32) + own.astype(np.float32)).astype(dtype)
        for (name, x), own in zip(inputs.items(), terms, strict=True)
    }
    (wanted,) = run(
        session_of(model_of("MultiHeadAttention", added, MULTI, ["output"], num_heads=H)), added
    )
    assert got.tobytes() == wanted.tobytes()


def test_a_row_of_padding_alone_is_zero(rng: np.random.Generator) -> None:
    inputs = encoder(rng) | {"key_padding_mask": np.array([19, 0], np.int32)}
    model = model_of("MultiHeadAttention", inputs, MULTI, ["output"], num_heads=H)
    assert not run(session_of(model), inputs)[0][1].any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key_padding_mask": np.ones(8, np.int32)}, r"key_padding_mask must have shape \(2\)"),
        ({"key_padding_mask": np.ones((2, 7), np.int32)}, r"must have shape \(2, 19\)"),
        ({"bias": np.ones(9, np.float32)}, r"bias must have shape \(576\), not \(9\)"),
        ({"query": np.ones((2, 19, 6, 3, 32), np.float32)}, "packed projections"),
        ({"past_sequence_length": np.ones(1, np.int32)}, "past_sequence_length"),
    ],
)
def test_what_an_encoder_cannot_take(
    rng: np.random.Generator, change: dict[str, np.ndarray], words: str
) -> None:
    inputs = encoder(rng) | change
    model = model_of("MultiHeadAttention", inputs, MULTI, ["output"], num_heads=H)
    with pytest.raises(Exception, match=f"numattn's MultiHeadAttention: .*{words}"):
        run(session_of(model), inputs)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({}, "num_heads must be at least 1, not 0"),
        ({"num_heads": 6, "mask_filter_value": -2.0}, "mask_filter_value must be -1000 or less"),
    ],
)
def test_settings_of_an_encoder(
    rng: np.random.Generator, attributes: dict[str, Any], words: str
) -> None:
    with pytest.raises(Exception, match=words):
        session_of(model_of("MultiHeadAttention", encoder(rng), MULTI, ["output"], **attributes))
