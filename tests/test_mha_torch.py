"""`MultiHeadAttention.from_torch`: what a module or its state says, and the same results."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numattn as na
from cases import normal
from child import output_of
from numattn import reference
from test_mha import assert_close
from tolerance import assert_same_bits

Array = np.ndarray[Any, Any]


def torch_state(rng: np.random.Generator, kind: str, with_bias: bool) -> dict[str, Any]:
    """Return what the state of a torch.nn.MultiheadAttention(48, 4) holds, as NumPy arrays."""
    projections = {f"{name}_proj_weight": 0.15 * normal(rng, (48, 48)) for name in "qkv"}
    state: dict[str, Any] = projections
    if kind == "in_proj":
        state = {"in_proj_weight": np.concatenate(list(projections.values()))}
    state["out_proj.weight"] = 0.15 * normal(rng, (48, 48))
    if with_bias:
        state |= {"in_proj_bias": normal(rng, (144,)), "out_proj.bias": normal(rng, (48,))}
    return state


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("kind", ["in_proj", "separate"])
@pytest.mark.parametrize("prefix", ["", "layers.0.self_attn."])
def test_from_torch(
    isa: str, rng: np.random.Generator, prefix: str, kind: str, with_bias: bool
) -> None:
    state = torch_state(rng, kind, with_bias)
    named = {prefix + name: x for name, x in state.items()}
    if prefix:
        named["another.weight"] = np.zeros(3)
    mha = na.MultiHeadAttention.from_torch(named, 4, prefix=prefix)
    query, key, value = (
        np.split(state["in_proj_weight"], 3)
        if kind == "in_proj"
        else [state[f"{name}_proj_weight"] for name in "qkv"]
    )
    biases = (
        dict(zip(("bq", "bk", "bv"), np.split(state["in_proj_bias"], 3), strict=True))
        | {"bo": state["out_proj.bias"]}
        if with_bias
        else {}
    )
    exact = reference.MultiHeadAttention(4, query, key, value, state["out_proj.weight"], **biases)
    x, context = normal(rng, (2, 19, 48)), normal(rng, (2, 7, 48))
    assert_close(mha(x), exact(x), "plain")
    assert_close(mha(x, context), exact(x, context), "plain")


def test_from_torch_names_what_is_missing(rng: np.random.Generator) -> None:
    state = torch_state(rng, "in_proj", False)
    del state["out_proj.weight"]
    with pytest.raises((KeyError, ValueError), match="out_proj.weight"):
        na.MultiHeadAttention.from_torch(state, 4)


def test_from_torch_refuses_appended_keys(rng: np.random.Generator) -> None:
    state = torch_state(rng, "in_proj", False) | {"bias_k": np.zeros((1, 1, 48), np.float32)}
    with pytest.raises(ValueError, match="bias_k"):
        na.MultiHeadAttention.from_torch(state, 4)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"norm.weight": np.zeros(48)}, "norm.weight is no parameter"),
        ({"q_proj_weight": np.zeros((48, 48))}, "in_proj_weight and q_proj_weight are both"),
        ({"in_proj_weight": np.zeros((100, 48), np.float32)}, r"three equal parts.*\(100, 48\)"),
        ({"in_proj_bias": np.zeros((), np.float32)}, "three equal parts"),
        ({"in_proj_bias": np.zeros(48, np.float32)}, r"bq must have shape \(48,\)"),
        ({"bias_v": np.zeros((1, 1, 48), np.float32)}, "bias_v.*add_bias_kv"),
    ],
)
def test_states_of_other_modules_are_refused(
    rng: np.random.Generator, changes: dict[str, Any], named: str
) -> None:
    state = torch_state(rng, "in_proj", True) | changes
    with pytest.raises(ValueError, match=named):
        na.MultiHeadAttention.from_torch(state, 4)


def test_names_without_a_value_are_as_if_absent(rng: np.random.Generator) -> None:
    state, x = torch_state(rng, "in_proj", False), normal(rng, (5, 48))
    absent = {"in_proj_bias": None, "q_proj_weight": None, "bias_k": None, "bias_v": None}
    taken = na.MultiHeadAttention.from_torch(state | absent, 4)
    assert_same_bits(taken(x), na.MultiHeadAttention.from_torch(state, 4)(x))


# --- modules --------------------------------------------------------------------------------------


def module_of(state: dict[str, Any], **settings: Any) -> Any:
    """Return what of a module is looked at, where torch itself may be absent."""
    given = {"num_heads": 4, "batch_first": True, "add_zero_attn": False, **settings}
    return SimpleNamespace(state_dict=lambda: state, **given)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_module_says_how_it_is_called(
    isa: str, rng: np.random.Generator, batch_first: bool
) -> None:
    state, x = torch_state(rng, "in_proj", True), normal(rng, (3, 5, 48))
    module = module_of(state, batch_first=batch_first)
    taken = na.MultiHeadAttention.from_torch(module)
    assert taken.batch_first is batch_first
    plain = na.MultiHeadAttention.from_torch(state, 4)
    expected = plain(x) if batch_first else plain(x.swapaxes(0, 1)).swapaxes(0, 1)
    assert_same_bits(taken(x), expected)
    assert_close(taken(x), reference.MultiHeadAttention.from_torch(module)(x), "plain")
    other = na.MultiHeadAttention.from_torch(module, batch_first=not batch_first)
    assert_same_bits(other(x.swapaxes(0, 1)), expected.swapaxes(0, 1))


def with_zero_key(state: dict[str, Any], x: Array, context: Array, is_causal: bool) -> Array:
    """Return what a module with add_zero_attn computes, by a key and a value that are appended."""
    wq, wk, wv = np.split(state["in_proj_weight"].astype(np.float64), 3)
    bq, bk, bv = np.split(state["in_proj_bias"].astype(np.float64), 3)

    def heads(rows: Array, weight: Array, bias: Array, more: int) -> Array:
        projected = np.pad(rows @ weight.T + bias, ((0, 0), (0, more), (0, 0)))
        return projected.reshape(*projected.shape[:2], 4, 12)

    q, k, v = (
        heads(x, wq, bq, 0), heads(context, wk, bk, 1), heads(context, wv, bv, 1)
    )  # fmt: skip
    count = context.shape[1]
    mask = np.ones((x.shape[1], count + 1), bool)
    if is_causal:
        mask[:, :count] = np.tril(mask[:, :count])
    o = reference.attention(q, k, v, mask=mask, layout="bshd").reshape(*x.shape)
    return o @ state["out_proj.weight"].T + state["out_proj.bias"]


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("length", [1, 19])
def test_a_key_of_zeros(isa: str, rng: np.random.Generator, length: int, is_causal: bool) -> None:
    state = torch_state(rng, "in_proj", True)
    x, context = normal(rng, (2, 7, 48)), normal(rng, (2, length, 48))
    expected = with_zero_key(state, x, context, is_causal)
    for taken in (
        na.MultiHeadAttention.from_torch(module_of(state, add_zero_attn=True)),
        na.MultiHeadAttention.from_torch(state, 4, add_zero_attn=True),
    ):
        y, weights = taken(x, context, is_causal=is_causal, return_weights=True)
        assert_close(y, expected, "plain")
        assert (weights.sum(axis=-1) < 0.999).all()
    exact = reference.MultiHeadAttention.from_torch(state, 4, add_zero_attn=True)
    np.testing.assert_allclose(exact(x, context, is_causal=is_causal), expected, rtol=1e-12)
    without = na.MultiHeadAttention.from_torch(state, 4)(x, context, is_causal=is_causal)
    assert np.linalg.norm(without - expected) > 0.01 * np.linalg.norm(expected)


def test_what_contradicts_a_module_is_refused(rng: np.random.Generator) -> None:
    module = module_of(torch_state(rng, "in_proj", False))
    take = na.MultiHeadAttention.from_torch
    take(module, 4, add_zero_attn=False)
    with pytest.raises(ValueError, match="num_heads is 4 in the module, not 8"):
        take(module, 8)
    with pytest.raises(ValueError, match="add_zero_attn is False in the module, not True"):
        take(module, add_zero_attn=True)
    with pytest.raises(ValueError, match="prefix must be empty with a module.*'layer.'"):
        take(module, prefix="layer.")
    with pytest.raises(TypeError, match="num_heads must be given"):
        take(module.state_dict())
    for other in (SimpleNamespace(state_dict=module.state_dict), normal(rng, (48, 48)), None):
        with pytest.raises(TypeError, match=type(other).__name__):
            take(other, 4)
    for heads in (0, -4):
        with pytest.raises(ValueError, match="num_heads must be a positive multiple"):
            take(module.state_dict(), heads, add_zero_attn=True)


def test_torch_is_never_imported() -> None:
    printed = output_of(
        """
        import sys
        import numpy as np
        import numattn as na
        state = {"in_proj_weight": np.ones((6, 2), np.float32),
                 "out_proj.weight": np.ones((2, 2), np.float32)}
        na.MultiHeadAttention.from_torch(state, 1, add_zero_attn=True)
        print("torch" in sys.modules)
        """
    )
    assert printed.split() == ["False"]


# --- beside torch ---------------------------------------------------------------------------------


def run(module: Any, *inputs: Array, **options: Any) -> tuple[Array, Array]:
    """Return a module's result for float32 arrays, and its probabilities of every head."""
    torch = pytest.importorskip("torch")
    options = {name: torch.as_tensor(value) for name, value in options.items()}
    with torch.no_grad():
        y, weights = module(*map(torch.from_numpy, inputs), average_attn_weights=False, **options)
    return y.numpy(), weights.numpy()


def torch_module(**options: Any) -> Any:
    """Return a torch.nn.MultiheadAttention(48, 4) in evaluation, its biases not zero."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(48, 4, dropout=0.5, **options).eval()
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("sizes", [{}, {"kdim": 30, "vdim": 30}, {"kdim": 30, "vdim": 20}])
@pytest.mark.parametrize("add_zero_attn", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_modules_of_torch(
    isa: str,
    rng: np.random.Generator,
    with_bias: bool,
    batch_first: bool,
    add_zero_attn: bool,
    sizes: dict[str, int],
) -> None:
    module = torch_module(
        bias=with_bias, batch_first=batch_first, add_zero_attn=add_zero_attn, **sizes
    )
    x, key = normal(rng, (2, 19, 48)), normal(rng, (2, 7, sizes.get("kdim", 48)))
    value = normal(rng, (2, 7, sizes.get("vdim", 48)))
    if not batch_first:
        x, key, value = (array.swapaxes(0, 1) for array in (x, key, value))
    theirs, their_weights = run(module, x, key, value)
    mha, exact = (
        part.MultiHeadAttention.from_torch(module) for part in (na, reference)
    )  # fmt: skip
    y, ours = mha(x, key, values_from=value, return_weights=True)
    assert_close(y, theirs, "plain")
    np.testing.assert_allclose(ours, their_weights[..., :7], atol=1e-6)
    assert_close(y, exact(x, key, values_from=value), "plain")
    assert_same_bits(mha(x, mha.project_context(key, values_from=value)), y)


@pytest.mark.parametrize("add_zero_attn", [False, True])
def test_masks_beside_torch(isa: str, rng: np.random.Generator, add_zero_attn: bool) -> None:
    """A row with no key but that of zeros gives the output's bias; torch hides where it is True."""
    module = torch_module(batch_first=True, add_zero_attn=add_zero_attn)
    x, hidden = normal(rng, (2, 9, 48)), np.zeros((2, 9), bool)
    hidden[0, 5:] = True
    hidden[1, 0 if add_zero_attn else 1 :] = True
    theirs, _ = run(module, x, x, x, key_padding_mask=hidden)
    y = na.MultiHeadAttention.from_torch(module)(x, mask=~hidden[:, np.newaxis, np.newaxis])
    assert_close(y, theirs, "plain")
    if add_zero_attn:
        np.testing.assert_array_equal(y[1], np.tile(module.out_proj.bias.detach(), (9, 1)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_modules_of_two_bytes(isa: str, rng: np.random.Generator, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    module = torch_module(batch_first=True).to(getattr(torch, dtype))
    x = normal(rng, (2, 9, 48))
    taken = na.MultiHeadAttention.from_torch(module)
    theirs, _ = run(module.float(), x, x, x)  # exact: the same weights in more bits
    assert_close(taken(x), theirs, "plain")
    stored = na.MultiHeadAttention.from_torch(module, dtype=dtype) if dtype == "bfloat16" else taken
    assert stored(x).dtype == np.float32
    narrow = x.astype(ml_dtypes.bfloat16)
    assert taken(narrow).dtype == ml_dtypes.bfloat16


def test_a_module_of_doubles_is_refused_at_once() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="wq has dtype float64"):
        na.MultiHeadAttention.from_torch(torch_module().to(torch.float64))


def test_a_layer_of_detr(isa: str, rng: np.random.Generator) -> None:
    """Positions are added to queries and keys, not to values (Carion et al., 2020, figure 10)."""
    encoder, decoder = torch_module(), torch_module(vdim=48, kdim=48)
    image, where = normal(rng, (20, 2, 48)), normal(rng, (20, 2, 48))
    objects, asked = normal(rng, (5, 2, 48)), normal(rng, (5, 2, 48))
    mha = na.MultiHeadAttention.from_torch(encoder)
    theirs, _ = run(encoder, image + where, image + where, image)
    assert_close(mha(image + where, values_from=image), theirs, "plain")
    mha = na.MultiHeadAttention.from_torch(decoder)
    theirs, _ = run(decoder, objects + asked, image + where, image)
    assert_close(mha(objects + asked, image + where, values_from=image), theirs, "plain")
