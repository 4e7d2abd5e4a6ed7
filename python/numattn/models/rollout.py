"""Attention through all layers at once: which inputs a token's last state was gathered from.

    rollout = A_L · … · A_2 · A_1      A_l = (mean over the heads of layer l + 1) / 2

(Abnar and Zuidema, Quantifying Attention Flow in Transformers, 2020.) The 1 is what a residual
connection carries past the attention. It is a picture of where information may flow, not of what
the model does with it: values and feed-forward parts do not enter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .arrays import Float32Array


def attention_rollout(maps: NDArray[np.float32]) -> Float32Array:
    """Return the rollout (S, S) of attention maps (L, H, S, S).

    Parameters
    ----------
    maps : float array (L, H, S, S)
        Those of all layers, the first first, as `attention_weights` of a model gives them.

    Returns
    -------
    float32 array (S, S)
        Entry [i, j]: how much token i of the last layer owes to input j. Rows add up to 1.

    Raises
    ------
    ValueError
        If maps have another shape, or no layer or head.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.array([[[[1, 0], [1, 0]]]], np.float32)
    >>> attention_rollout(np.concatenate([one, one]))
    array([[1.  , 0.  ],
           [0.75, 0.25]], dtype=float32)
    """
    shape = maps.shape
    if maps.ndim != 4 or shape[2] != shape[3] or 0 in shape[:2]:
        raise ValueError(f"maps must be (L, H, S, S) of one layer and head or more, not {shape}")
    rolled = np.eye(shape[2])
    for layer in maps:
        rolled = (layer.mean(axis=0, dtype=np.float64) @ rolled + rolled) / 2
    return rolled.astype(np.float32)
