"""What a ``torch.nn.MultiheadAttention`` is made of, under the names of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numattn._arguments import bounded_integer

Array = NDArray[Any]

PARAMETERS = (
    "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias",
    "out_proj.weight", "out_proj.bias", "bias_k", "bias_v",
)  # fmt: skip


def arguments_of_torch(
    source: Any,
    num_heads: int | None,
    prefix: str,
    batch_first: bool | None,
    add_zero_attn: bool | None,
) -> dict[str, Any]:
    """The arguments of :class:`numattn.MultiHeadAttention` for a module, or for its state.

    Raises
    ------
    TypeError, ValueError
        As for :meth:`numattn.MultiHeadAttention.from_torch`.
    """
    if hasattr(source, "items"):
        if num_heads is None:
            raise TypeError("num_heads must be given with a state, which does not tell it")
        settings: dict[str, Any] = {"num_heads": num_heads, "batch_first": True}
        zero_key = False
        state = source
    else:
        settings = settings_of_module(source, num_heads, prefix)
        zero_key = bool(source.add_zero_attn)
        if add_zero_attn is not None and bool(add_zero_attn) != zero_key:
            raise ValueError(f"add_zero_attn is {zero_key} in the module, not {add_zero_attn}")
        state = source.state_dict()
    if batch_first is not None:
        settings["batch_first"] = bool(batch_first)
    if zero_key or add_zero_attn:
        # A key of zeros has the score 0 and its value adds nothing.
        heads = bounded_integer("num_heads", settings["num_heads"])
        settings["sinks"] = np.zeros(max(heads, 0), np.float32)
    return {**settings, **weights_of_state(state, prefix)}


def settings_of_module(module: Any, num_heads: int | None, prefix: str) -> dict[str, Any]:
    """What a module says of itself beside its state."""
    needed = ("state_dict", "num_heads", "batch_first", "add_zero_attn")
    if not all(hasattr(module, name) for name in needed):
        raise TypeError(
            "weights are taken from a torch.nn.MultiheadAttention or its state_dict(), "
            f"not from {type(module).__name__}"
        )
    if prefix:
        raise ValueError(f"prefix must be empty with a module, whose names have none: {prefix!r}")
    if num_heads is not None and num_heads != module.num_heads:
        raise ValueError(f"num_heads is {module.num_heads} in the module, not {num_heads}")
    return {"num_heads": module.num_heads, "batch_first": bool(module.batch_first)}


def weights_of_state(state_dict_like: Mapping[str, Any], prefix: str) -> dict[str, Array]:
    """wq, wk, wv and wo, and those of bq, bk, bv and bo that there are."""
    state = {
        name.removeprefix(prefix): value
        for name, value in state_dict_like.items()
        if name.startswith(prefix) and value is not None
    }
    for name in state:
        if name not in PARAMETERS:
            raise ValueError(
                f"{prefix}{name} is no parameter of a torch.nn.MultiheadAttention: give the "
                "prefix of its names, or its state alone"
            )
    for learned in ("bias_k", "bias_v"):
        if learned in state:
            raise ValueError(f"{prefix}{learned} (add_bias_kv=True) is not supported")

    def array(name: str) -> Array:
        if name not in state:
            raise ValueError(f"{prefix}{name} is missing from the state")
        return as_array(prefix + name, state[name])

    def thirds(name: str) -> list[Array]:
        joint = array(name)
        if not joint.ndim or len(joint) % 3:
            raise ValueError(f"{prefix}{name} must have three equal parts, not shape {joint.shape}")
        return np.split(joint, 3)

    separate = [f"{name}_proj_weight" for name in "qkv"]
    if "in_proj_weight" in state:
        for name in separate:
            if name in state:
                raise ValueError(f"{prefix}in_proj_weight and {prefix}{name} are both in the state")
        weights = thirds("in_proj_weight")
    else:
        weights = [array(name) for name in separate]
    arguments = dict(zip(("wq", "wk", "wv"), weights, strict=True))
    arguments["wo"] = array("out_proj.weight")
    if "in_proj_bias" in state:
        arguments |= zip(("bq", "bk", "bv"), thirds("in_proj_bias"), strict=True)
    if "out_proj.bias" in state:
        arguments["bo"] = array("out_proj.bias")
    return arguments


def as_array(name: str, value: Any) -> Array:
    """An array, or a tensor as one; bfloat16, which torch gives to no array, as float32."""
    tensor = value.detach() if hasattr(value, "detach") else value
    if str(getattr(tensor, "dtype", "")) == "torch.bfloat16":
        tensor = tensor.float()
    try:
        return np.asarray(tensor)
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{name} cannot be read as an array: {error}") from error
