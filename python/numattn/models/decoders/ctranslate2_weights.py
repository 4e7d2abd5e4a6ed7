"""The variables of a decoder of CTranslate2's by the names that Hugging Face's folders have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..files.ctranslate2_file import Ctranslate2File
from ..files.ctranslate2_tensors import Ctranslate2Tensors, Place
from .head import HEAD

TABLE = "decoder/embeddings/weight"
POSITIONS = "decoder/position_encodings/encodings"
# A part → where it stands, and which of the parts of what is joined there it is.
PARTS: dict[str, tuple[str, int | None]] = {
    "embed_tokens": ("embeddings", None),
    "wte": ("embeddings", None),
    "norm": ("layer_norm", None),
    "ln_f": ("layer_norm", None),
    "input_layernorm": ("self_attention/layer_norm", None),
    "ln_1": ("self_attention/layer_norm", None),
    "post_attention_layernorm": ("ffn/layer_norm", None),
    "ln_2": ("ffn/layer_norm", None),
    "self_attn.q_proj": ("self_attention/linear_0", 0),
    "self_attn.k_proj": ("self_attention/linear_0", 2),
    "self_attn.v_proj": ("self_attention/linear_0", 1),
    "self_attn.q_norm": ("self_attention/q_norm", None),
    "self_attn.k_norm": ("self_attention/k_norm", None),
    "attn.c_attn": ("self_attention/linear_0", None),
    "self_attn.o_proj": ("self_attention/linear_1", None),
    "attn.c_proj": ("self_attention/linear_1", None),
    "mlp.gate_proj": ("ffn/linear_0", None),
    "mlp.c_fc": ("ffn/linear_0", None),
    "mlp.up_proj": ("ffn/linear_0_noact", None),
    "mlp.down_proj": ("ffn/linear_1", None),
    "mlp.c_proj": ("ffn/linear_1", None),
}
NORMS = {"weight": "gamma", "bias": "beta"}
FULL_NAME = re.compile(r"(?:(?:layers|h)\.(\d+)\.)?(.+)\.(weight|bias)")


class DecoderTensors(Ctranslate2Tensors):
    """A folder's variables, whose head is the table of the tokens, if they are one."""

    def __init__(self, file: Ctranslate2File) -> None:
        super().__init__(file, place_of)

    def take(
        self,
        name: str,
        shape: Sequence[int],
        *,
        from_root: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return a tensor, of exactly that shape, as float32 or `dtype`."""
        # GPT-2's projections stand as (in, out) in its folders, and as (out, in) here.
        if name.startswith("h.") and len(shape) == 2:
            turned: NDArray[Any] = super().take(name, tuple(shape)[::-1], dtype=dtype).T
            return turned
        return super().take(name, shape, dtype=dtype)

    def has(self, name: str, *, from_root: bool = False) -> bool:
        """Return whether there is a tensor of that name, which is not another one's."""
        if name == HEAD and self.file.own_name(place_of(HEAD).name) == self.file.own_name(TABLE):
            return False
        return super().has(name)


def place_of(name: str) -> Place:
    """Return where a tensor stands; of a stem of layers, what their names begin with.

    >>> place_of("layers.2.self_attn.v_proj.weight")
    Place(name='decoder/layer_2/self_attention/linear_0/weight', part=1)
    >>> place_of("ln_f.bias")
    Place(name='decoder/layer_norm/beta', part=None)
    """
    if name in ("layers", "h"):
        return Place("decoder/layer_")
    if name == HEAD:
        return Place("decoder/projection/weight")
    if name == "wpe.weight":
        return Place(POSITIONS)
    match = FULL_NAME.fullmatch(name)
    if match is None or match[2] not in PARTS:
        return Place(name)
    stored, part = PARTS[match[2]]
    layer = "" if match[1] is None else f"layer_{match[1]}/"
    kind = NORMS[match[3]] if stored.endswith("_norm") else match[3]
    return Place(f"decoder/{layer}{stored}/{kind}", part)
