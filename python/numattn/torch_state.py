"""The parameters of a ``torch.nn.MultiheadAttention``, under the names of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def weights_of_torch(state_dict_like: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """wq, wk, wv and wo, and bq, bk, bv and bo, which may be None.

    Raises
    ------
    ValueError
        As for :meth:`numattn.MultiHeadAttention.from_torch`.
    """
    state = {
        name.removeprefix(prefix): value
        for name, value in state_dict_like.items()
        if name.startswith(prefix)
    }

    def array(name: str) -> Array:
        if name not in state:
            raise ValueError(f"{prefix}{name} is missing from the state")
        value = state[name]
        return np.asarray(value.detach() if hasattr(value, "detach") else value)

    for learned in ("bias_k", "bias_v"):
        if state.get(learned) is not None:
            raise ValueError(f"{prefix}{learned} (add_bias_kv=True) is not supported")
    if state.get("in_proj_weight") is not None:
        wq, wk, wv = np.split(array("in_proj_weight"), 3)
    else:
        wq, wk, wv = (array(f"{name}_proj_weight") for name in "qkv")
    bq = bk = bv = bo = None
    if state.get("in_proj_bias") is not None:
        bq, bk, bv = np.split(array("in_proj_bias"), 3)
    if state.get("out_proj.bias") is not None:
        bo = array("out_proj.bias")
    return {
        "wq": wq, "wk": wk, "wv": wv, "wo": array("out_proj.weight"),
        "bq": bq, "bk": bk, "bv": bv, "bo": bo,
    }  # fmt: skip
