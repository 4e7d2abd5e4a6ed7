"""Tensors of other libraries: read in place by DLPack, and answered in their own kind."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numattn as na


class Namespace:
    """The library that `Tensor` comes from."""

    @staticmethod
    def from_dlpack(exported: Any) -> Tensor:
        assert exported.__dlpack_device__() == (1, 0)
        return Tensor(np.from_dlpack(exported))


class Tensor:
    """A tensor of a library that offers nothing but DLPack; its numbers are an array's."""

    def __init__(self, array: np.ndarray, device: tuple[int, int] = (1, 0)) -> None:
        self.array = array
        self.device = device
        self.asked: list[Any] = []

    def __array_namespace__(self) -> type[Namespace]:
        return Namespace

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None) -> Any:
        self.asked.append(max_version)
        return self.array.__dlpack__(max_version=max_version)


class OldTensor(Tensor):
    """One that was written before DLPack had versions, of a library that makes no tensors."""

    __array_namespace__ = None  # type: ignore[assignment]

    def __dlpack__(self) -> Any:  # type: ignore[override]
        return self.array.__dlpack__()


def heads(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


@pytest.fixture
def qkv(rng: np.random.Generator) -> list[np.ndarray]:
    return [heads(rng, 2, 4, 5, 16) for _ in range(3)]


def test_a_tensor_in_gives_a_tensor_out(qkv: list[np.ndarray]) -> None:
    expected, sums = na.attention(*qkv, return_lse=True)
    o, lse = na.attention(*map(Tensor, qkv), return_lse=True)
    assert isinstance(o, Tensor) and isinstance(lse, Tensor)
    np.testing.assert_array_equal(o.array, expected)
    np.testing.assert_array_equal(lse.array, sums)


def test_the_kind_is_that_of_the_queries(qkv: list[np.ndarray]) -> None:
    q, k, v = qkv
    assert type(na.attention(q, Tensor(k), Tensor(v))) is np.ndarray
    assert type(na.attention(Tensor(q), k, v)) is Tensor
    assert type(na.attention(q.tolist() and q, k, v)) is np.ndarray


def test_a_library_that_makes_no_tensors_gets_arrays(qkv: list[np.ndarray]) -> None:
    result = na.attention(*map(OldTensor, qkv))
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result, na.attention(*qkv))


def test_strides_are_read_where_they_lie(rng: np.random.Generator) -> None:
    memory = heads(rng, 2, 6, 4, 3, 16)
    q, k, v = (memory[:, ::2, :, part] for part in range(3))
    result = na.attention(Tensor(q), Tensor(k), Tensor(v), layout="bshd")
    np.testing.assert_array_equal(result.array, na.attention(q, k, v, layout="bshd"))


def test_out_is_written_in_place_and_returned(qkv: list[np.ndarray]) -> None:
    memory = np.zeros_like(qkv[0])
    out = Tensor(memory)
    assert na.attention(*qkv, out=out) is out
    np.testing.assert_array_equal(memory, na.attention(*qkv))
    array = np.zeros_like(memory)
    assert na.attention(*map(Tensor, qkv), out=array) is array
    np.testing.assert_array_equal(array, memory)


def test_out_of_a_tensor_is_held_to_the_same_rules(qkv: list[np.ndarray]) -> None:
    q, k, v = qkv
    with pytest.raises(ValueError, match="out overlaps q"):
        na.attention(*qkv, out=Tensor(q))
    with pytest.raises(ValueError, match="out overlaps k"):
        na.attention(q, Tensor(k), v, out=Tensor(k[:]))
    read_only = np.zeros_like(q)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        na.attention(*qkv, out=Tensor(read_only))
    with pytest.raises(ValueError, match="out is read-only"):  # whether it is, it does not say
        na.attention(*qkv, out=OldTensor(np.zeros_like(q)))
    with pytest.raises(ValueError, match="out must have shape"):
        na.attention(*qkv, out=Tensor(np.zeros((1, 2), np.float32)))


def test_the_dtype_is_that_of_the_tensor(qkv: list[np.ndarray]) -> None:
    double = qkv[0].astype(np.float64)
    with pytest.raises(TypeError, match="q is float64"):
        na.attention(Tensor(double), Tensor(double), Tensor(double))
    half = [x.astype(np.float16) for x in qkv]
    assert na.attention(*map(Tensor, half)).array.dtype == np.float16


@pytest.mark.parametrize("device", [(2, 1), (8, 0), (12, 0)])
def test_another_device_is_named(qkv: list[np.ndarray], device: tuple[int, int]) -> None:
    q, k, v = qkv
    with pytest.raises(
        TypeError, match=rf"k \(.*Tensor, device \({device[0]}, .* is in other memory"
    ):
        na.attention(q, Tensor(k, device), v)


def test_what_cannot_be_exported_is_named(qkv: list[np.ndarray]) -> None:
    class Lazy(Tensor):
        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("it is not computed yet")

    with pytest.raises(TypeError, match=r"v \(.*Lazy, .*\) cannot be read: it is not computed yet"):
        na.attention(*qkv[:2], Lazy(qkv[2]))


def test_all_that_a_score_takes_may_be_a_tensor(qkv: list[np.ndarray]) -> None:
    score = {
        "mask": np.tri(5, dtype=bool),
        "bias": heads(np.random.default_rng(0), 4, 5, 5),
        "kv_lens": np.array([3, 5]),
        "alibi_slopes": np.ones(4, np.float32),
        "sinks": np.zeros(4, np.float32),
        "q_offset": np.array([0, 1]),
    }
    expected = na.attention(*qkv, **score)
    tensors = {name: Tensor(value) for name, value in score.items()}
    np.testing.assert_array_equal(na.attention(*qkv, **tensors), expected)


def layers(rng: np.random.Generator) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    x = heads(rng, 2, 3, 16)
    square, one = heads(rng, 16, 16), np.ones(16, np.float32)
    mha = na.MultiHeadAttention(2, square, square, square, square)
    table = np.ones((3, 8), np.float32)
    q = heads(rng, 2, 3, 16)
    linear = na.Linear(square)

    def attend(x: Any) -> Any:
        cache = na.KVCache(1, 1, 2, 16)
        return cache.attend(0, x, x, x)

    return {
        "Linear": (linear, (x,)),
        "Linear of rows": (linear, (x[0],)),
        "MultiHeadAttention": (mha, (x,)),
        "layer_norm": (na.layer_norm, (x, one)),
        "rms_norm": (na.rms_norm, (x, one)),
        "apply_rope": (na.apply_rope, (q, table, table)),
        "gelu": (na.gelu, (x,)),
        "sigmoid_attention": (na.sigmoid_attention, (q, q, q)),
        "attention_weights": (na.attention_weights, (q, q)),
        "attention_varlen": (na.attention_varlen, (q, q, q, [0, 2], [0, 2])),
        "attention_paged": (na.attention_paged, (x[np.newaxis], x[np.newaxis].swapaxes(1, 2),
                            x[np.newaxis].swapaxes(1, 2), [[0]], [2])),
        "KVCache.attend": (attend, (q[np.newaxis],)),
        "approx": (na.approx.linear_attention, (q, q, q)),
        "windows": (na.windows, (heads(rng, 4, 4, 3), 2)),
        "HeadNorm": (na.HeadNorm("rms"), (x,)),
    }  # fmt: skip


@pytest.mark.parametrize("name", layers(np.random.default_rng(0)))
def test_every_layer_answers_in_kind(name: str) -> None:
    function, arguments = layers(np.random.default_rng(1))[name]
    expected = function(*arguments)
    result = function(*(Tensor(x) if isinstance(x, np.ndarray) else x for x in arguments))
    assert isinstance(result, Tensor)
    np.testing.assert_array_equal(result.array, expected)


def test_states_are_merged_in_kind(qkv: list[np.ndarray]) -> None:
    q, k, v = qkv
    halves = slice(0, 2), slice(2, None)
    parts = [na.attention(q, k[:, :, half], v[:, :, half], return_lse=True) for half in halves]
    o, lse = na.merge_states(*zip(*parts, strict=True))
    tensors = [[Tensor(x) for x in part] for part in zip(*parts, strict=True)]
    merged, total = na.merge_states(*tensors)
    np.testing.assert_array_equal(merged.array, o)
    np.testing.assert_array_equal(total.array, lse)


def test_a_result_lives_as_long_as_its_tensor(qkv: list[np.ndarray]) -> None:
    result = na.attention(*map(Tensor, qkv))
    expected = na.attention(*qkv)
    gc.collect()
    spare = [np.zeros_like(expected) for _ in range(8)]
    np.testing.assert_array_equal(result.array, expected)
    assert len(spare) == 8


def test_what_is_read_is_let_go(qkv: list[np.ndarray]) -> None:
    tensor = Tensor(qkv[0].copy())
    watched = weakref.ref(tensor.array)
    na.attention(tensor, *qkv[1:])
    del tensor
    gc.collect()
    assert watched() is None


# --- PyTorch --------------------------------------------------------------------------------------


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def test_torch_is_read_and_answered(torch: Any, qkv: list[np.ndarray]) -> None:
    tensors = [torch.from_numpy(x) for x in qkv]
    result = na.attention(*tensors)
    assert type(result) is torch.Tensor and not result.requires_grad
    np.testing.assert_array_equal(result.numpy(), na.attention(*qkv))


def test_torch_with_gradients_is_detached(torch: Any, qkv: list[np.ndarray]) -> None:
    q = torch.nn.Parameter(torch.from_numpy(qkv[0]))
    result = na.attention(q, *qkv[1:])
    assert not result.requires_grad
    np.testing.assert_array_equal(result.numpy(), na.attention(*qkv))


def test_bfloat16_of_torch(torch: Any, qkv: list[np.ndarray]) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    tensors = [torch.from_numpy(x).bfloat16() for x in qkv]
    result, lse = na.attention(*tensors, return_lse=True)
    assert result.dtype == torch.bfloat16 and lse.dtype == torch.float32
    o, sums = na.attention(*(x.astype(ml_dtypes.bfloat16) for x in qkv), return_lse=True)
    np.testing.assert_array_equal(result.view(torch.int16).numpy(), o.view(np.int16))
    np.testing.assert_array_equal(lse.numpy(), sums)
    out = torch.empty_like(tensors[0])
    assert na.attention(*tensors, out=out) is out
    assert torch.equal(out, result)


def test_bfloat16_of_torch_without_ml_dtypes(torch: Any) -> None:
    script = """
        import sys
        sys.modules["ml_dtypes"] = None
        import numpy as np, torch
        import numattn as na
        x = torch.arange(64, dtype=torch.float32).reshape(1, 4, 16).bfloat16() / 64
        wide = na.attention(x.float(), x.float(), x.float())
        o = na.attention(x, x, x)
        assert o.dtype == torch.bfloat16
        assert (o.float() - wide).abs().max() < 2**-7
        y = na.Linear(np.eye(16, dtype=np.float32))(x)
        assert torch.equal(y, x)
        try:
            na.gelu(x)
        except ImportError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "bfloat16, which needs ml_dtypes" in done.stdout


def test_what_torch_turns_the_sign_of(torch: Any, qkv: list[np.ndarray]) -> None:
    """The imaginary part of a conjugate, whose numbers in memory have the other sign."""
    q = torch.from_numpy(qkv[0])
    turned = torch.complex(q, -q).conj().imag
    assert turned.is_neg()
    result = na.attention(turned, *map(torch.from_numpy, qkv[1:]))
    np.testing.assert_array_equal(result.numpy(), na.attention(*qkv))


@pytest.mark.parametrize("kind", ["meta", "sparse", "fake", "quantized", "float8", "nested"])
def test_torch_that_has_no_plain_memory(
    torch: Any, kind: str, qkv: list[np.ndarray], recwarn: Any
) -> None:
    q = torch.from_numpy(qkv[0])
    if kind == "meta":
        bad, words = q.to("meta"), "q .*device meta.* cannot be read"
    elif kind == "sparse":
        bad, words = q.to_sparse(), "q .*torch.sparse_coo.* cannot be read"
    elif kind == "fake":
        from torch._subclasses import FakeTensorMode

        with FakeTensorMode():
            bad = torch.empty(q.shape)
        words = "q .*FakeTensor"
    elif kind == "quantized":
        bad, words = torch.quantize_per_tensor(q, 0.1, 0, torch.qint8), "q .*torch.qint8"
    elif kind == "float8":
        bad, words = q.to(torch.float8_e4m3fn), "q .*float8_e4m3fn"
    else:
        bad, words = torch.nested.nested_tensor([q[0], q[1, :2]], layout=torch.jagged), "q .*Nested"
    with pytest.raises(TypeError, match=words):
        na.attention(bad, *qkv[1:])


def test_out_of_torch(torch: Any, qkv: list[np.ndarray]) -> None:
    tensors = [torch.from_numpy(x) for x in qkv]
    with pytest.raises(ValueError, match="out overlaps q"):
        na.attention(*tensors, out=tensors[0])
    wide = torch.zeros(2, 4, 5, 32)
    assert na.attention(*tensors, out=wide[..., :16]).shape == (2, 4, 5, 16)
    np.testing.assert_array_equal(wide[..., :16].numpy(), na.attention(*qkv))
    assert not wide[..., 16:].any()


def test_terms_that_are_kept_do_not_follow_a_tensor(torch: Any, rng: np.random.Generator) -> None:
    """Whose memory may be given to another while they are used."""
    weights = [torch.from_numpy(heads(rng, 8, 8)) for _ in range(4)]
    sinks = torch.nn.Parameter(torch.ones(2))
    mha = na.MultiHeadAttention(2, *weights, sinks=sinks)
    x = heads(rng, 3, 8)
    before = mha(x)
    sinks.data.fill_(50.0)
    np.testing.assert_array_equal(mha(x), before)


def test_torch_results_can_be_grown_from_any_thread(torch: Any, qkv: list[np.ndarray]) -> None:
    """The last to hold a result may be a thread of torch's own, without the interpreter's lock."""
    import threading

    tensors = [torch.from_numpy(x) for x in qkv]
    expected = na.attention(*qkv)
    found = []

    def work() -> None:
        for _ in range(50):
            found.append(na.attention(*tensors) * 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 200
    assert all(np.array_equal(result.numpy(), expected) for result in found)


def test_jax_is_read_and_answered(qkv: list[np.ndarray]) -> None:
    jax = pytest.importorskip("jax")
    tensors = [jax.numpy.asarray(x) for x in qkv]
    result = na.attention(*tensors)
    assert isinstance(result, jax.Array)
    np.testing.assert_array_equal(np.asarray(result), na.attention(*qkv))
    narrow = [x.astype(jax.numpy.bfloat16) for x in tensors]
    assert na.attention(*narrow).dtype == jax.numpy.bfloat16
    with pytest.raises(ValueError, match="out is read-only"):
        na.attention(*tensors, out=tensors[0] + 0)
